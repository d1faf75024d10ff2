"""What is on the wire: forms, schemas, answers, and their documentation."""
