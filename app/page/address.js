// What was asked, in the address: #tab?model=...&prompt=... A link shows the same form again; pictures stay here.

const MOST_CHARS = 2000; // of a field: addresses have an end

const fields = () => [...document.querySelectorAll("[data-state]")];
const valueOf = (field) => (field.type === "checkbox" ? (field.checked ? "on" : "") : field.value);
const atFirst = new Map();

export function restore() {
  const [tab, query = ""] = location.hash.slice(1).split("?");
  const told = new URLSearchParams(query);
  for (const field of fields()) {
    atFirst.set(field, valueOf(field));
    const value = told.get(field.id);
    if (value === null) continue;
    if (field.type === "checkbox") field.checked = value === "on";
    else field.value = value;
  }
  return { tab, model: told.get("model"), example: told.get("example") };
}

export function store({ tab, ...others }) {
  const told = new URLSearchParams();
  for (const [name, value] of Object.entries(others)) if (value) told.set(name, value);
  for (const field of fields()) {
    const value = valueOf(field);
    if (value !== atFirst.get(field) && value !== field.dataset.suggested && value.length <= MOST_CHARS) told.set(field.id, value);
  }
  const query = told.toString();
  history.replaceState(null, "", `#${tab}${query && `?${query}`}`);
}
