// Tabs as the ARIA Authoring Practices have them: arrows, Home and End move and choose; one of them is in the tab order.

const all = () => [...document.querySelectorAll('[role="tab"]')];
const shown = () => all().filter((tab) => !tab.hidden);
export const nameOf = (tab) => tab.id.slice("tab-".length);
export const chosen = () => nameOf(all().find((tab) => tab.getAttribute("aria-selected") === "true"));

export function choose(name) {
  for (const tab of all()) {
    const is = nameOf(tab) === name;
    tab.setAttribute("aria-selected", String(is));
    tab.tabIndex = is ? 0 : -1;
    document.getElementById(tab.getAttribute("aria-controls")).hidden = !is;
  }
}

export function setUp(whenChosen) {
  for (const tab of all()) {
    tab.addEventListener("click", () => whenChosen(nameOf(tab)));
    tab.addEventListener("keydown", (event) => {
      const tabs = shown();
      const at = tabs.indexOf(tab);
      const next = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: tabs.length - 1 }[event.key];
      if (next === undefined) return;
      event.preventDefault();
      const to = tabs.at(next % tabs.length);
      to.focus();
      whenChosen(nameOf(to));
    });
  }
}

// Only those for which `is` holds; the first of them, if the chosen one is gone.
export function show(is) {
  for (const tab of all()) tab.hidden = !is(nameOf(tab));
  const tabs = shown();
  const list = document.querySelector('[role="tablist"]').style;
  list.setProperty("--tabs", tabs.length > 6 ? Math.ceil(tabs.length / 2) : tabs.length);
  list.setProperty("--tabs-narrow", tabs.length > 4 ? 3 : tabs.length);
  return tabs.length && !tabs.some((tab) => nameOf(tab) === chosen()) ? nameOf(tabs[0]) : chosen();
}
