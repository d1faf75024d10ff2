// The npm client against a service: prints what it was told. Arguments: base URL, key, data URI of an image.
import OpenAI from "openai";

const [baseURL, apiKey, url] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
const message = (text) => ({
  role: "user",
  content: [{ type: "text", text }, { type: "image_url", image_url: { url } }],
});
const caption = { model: "demo", num_beams: 1, messages: [message("Describe the picture.")] };

const models = (await client.models.list()).data.map((model) => model.id);
const whole = await client.chat.completions.create(caption);
const words = [];
for await (const chunk of await client.chat.completions.create({ ...caption, stream: true })) {
  words.push(chunk.choices[0]?.delta?.content ?? "");
}
const answer = await client.chat.completions.create({ model: "demo", messages: [message("what color is the circle?")] });
const response = await client.responses.create({
  model: "demo",
  input: [
    {
      role: "user",
      content: [
        { type: "input_text", text: "what color is the circle?" },
        { type: "input_image", image_url: url, detail: "low" },
      ],
    },
  ],
});
const embedding = await client.embeddings.create({ model: "demo", input: whole.choices[0].message.content });
const error = await client.chat.completions
  .create({ ...caption, model: "gpt-4o" })
  .catch(({ status, code, type }) => ({ status, code, type }));
console.log(
  JSON.stringify({
    models,
    caption: whole.choices[0].message.content,
    streamed: words.join(""),
    pieces: words.filter(Boolean).length,
    answer: answer.choices[0].message.content,
    response: response.output_text,
    embedding: embedding.data[0].embedding,
    error,
  }),
);
