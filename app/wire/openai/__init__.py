"""The shapes of OpenAI's API, as its clients send and read them."""
