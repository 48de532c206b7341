"use strict";
(() => {
  const PAGE = 20;
  const examples = JSON.parse(document.getElementById("examples").textContent);
  const form = document.getElementById("filter");
  const list = document.getElementById("list");
  const found = document.getElementById("found");
  const more = document.getElementById("more");
  let matching = [];
  let shown = 0;

  function element(tag, className, text) {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  }

  function side(title, isRight, trace, differsAt) {
    const box = element("div", "side");
    const heading = element("h4", "", title);
    heading.append(" ", element("span", isRight ? "right" : "wrong", isRight ? "right" : "wrong"));
    box.append(heading);
    trace.split("\n").forEach((text, index) => {
      box.append(element("div", index === differsAt ? "line differs" : "line", text));
    });
    return box;
  }

  function article(example) {
    const made = element("article");
    const labels = Object.entries(example.labels).map(([name, value]) => `${name}: ${value}`).join(", ");
    made.append(element("p", "soft",
      [`iteration ${example.iteration}`, example.question_id, example.outcome, labels].filter(Boolean).join(" · ")));
    made.append(element("p", "", example.stem));
    made.append(element("p", "soft options", `${example.options.join("    ")}    key: ${example.key}`));
    const sides = element("div", "sides");
    sides.append(side(`Attempt, answers ${example.answer || "nothing that can be read"}:`,
      example.answer === example.key, example.attempt, example.differ_at?.[0]));
    if (example.correction)
      sides.append(side(`Correction, answers ${example.corrected_answer || "nothing that can be read"}:`,
        example.corrected_answer === example.key, example.correction, example.differ_at?.[1]));
    made.append(sides);
    return made;
  }

  function showMore() {
    list.append(...matching.slice(shown, shown + PAGE).map(article));
    shown = Math.min(shown + PAGE, matching.length);
    more.hidden = shown >= matching.length;
    found.textContent = `${shown.toLocaleString("en")} of ${matching.length.toLocaleString("en")} shown`;
  }

  function filter() {
    const outcome = form.outcome.value;
    const iteration = form.iteration.value;
    const words = form.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    matching = examples.filter((example) => {
      if (outcome && example.outcome !== outcome) return false;
      if (iteration && String(example.iteration) !== iteration) return false;
      const text = [example.question_id, example.stem, ...example.options, ...Object.values(example.labels),
        example.attempt, example.correction].join("\n").toLowerCase();
      return words.every((word) => text.includes(word));
    });
    shown = 0;
    list.replaceChildren();
    showMore();
  }

  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", showMore);
  filter();
})();
