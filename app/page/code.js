// A request as a person would write it: curl and Python. The key is named, never shown.

import { service } from "./service.js";

const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;
const address = (path) => new URL(path, new URL("./", location.href)).href;
// For -F, curl reads ; and , in a filename unless it is quoted.
const part = (name) => (/[;,"\\]/.test(name) ? `"${name.replaceAll(/["\\]/g, "\\$&")}"` : name);

export function curl({ path, fields, json, accept }, { name }) {
  const parts = [`curl ${quoted(address(path))}`];
  if (service.needsKey) parts.push('-H "Authorization: Bearer $BLIP_API_KEY"');
  if (accept) parts.push(`-H ${quoted(`Accept: ${accept}`)}`);
  if (json) {
    // The picture stands where the quotes are closed: an argument may be too short for it, so it comes from stdin.
    const [, rest] = JSON.stringify({ image: "", ...json }).split(/^\{"image":""/);
    const shown = `{ printf '{"image":"'; base64 < ${quoted(name)} | tr -d '\\n'; printf %s ${quoted(`"${rest}`)}; }`;
    return `${shown} | ${[...parts, "-H 'Content-Type: application/json'", "--data-binary @-"].join(" \\\n  ")}`;
  }
  parts.push(`-F ${quoted(`image=@${part(name)}`)}`);
  for (const [field, value] of fields) parts.push(`--form-string ${quoted(`${field}=${value}`)}`);
  return parts.join(" \\\n  ");
}

export function python({ path, fields, json, accept }, { name }) {
  const headers = [];
  if (service.needsKey) headers.push(`"Authorization": f"Bearer {os.environ['BLIP_API_KEY']}"`);
  if (accept) headers.push(`"Accept": ${literal(accept)}`);
  const sent = json
    ? [`json={"image": base64.b64encode(picture.read()).decode(), ${Object.entries(json).map(([field, value]) => `${literal(field)}: ${literal(value)}`).join(", ")}},`]
    : [`files={"image": (${literal(name)}, picture)},`, `data=${literal(grouped(fields))},`];
  const imports = [json && "import base64", service.needsKey && "import os"].filter(Boolean);
  return [
    ...imports,
    ...(imports.length ? [""] : []),
    "import httpx",
    "",
    `with open(${literal(name)}, "rb") as picture:`,
    "    answer = httpx.post(",
    `        ${literal(address(path))},`,
    ...(headers.length ? [`        headers={${headers.join(", ")}},`] : []),
    ...sent.map((line) => `        ${line}`),
    "        timeout=65,",
    "    )",
    "print(answer.json())",
  ].join("\n");
}

// {name: value, or a list of those that share the name}
function grouped(fields) {
  const all = {};
  for (const [name, value] of fields) (all[name] ??= []).push(value);
  return Object.fromEntries(Object.entries(all).map(([name, values]) => [name, values.length > 1 ? values : values[0]]));
}

function literal(value) {
  if (Array.isArray(value)) return `[${value.map(literal).join(", ")}]`;
  if (typeof value === "boolean") return value ? "True" : "False";
  if (value && typeof value === "object") return `{${Object.entries(value).map(([name, one]) => `${JSON.stringify(name)}: ${literal(one)}`).join(", ")}}`;
  return JSON.stringify(value);
}
