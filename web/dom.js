// Elements without a template language: text is only ever set as text.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** An element of the page: el("p", { class: "note" }, "text", child). */
export function el(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

/** An element of a drawing. */
export function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

/** A table whose first column names its rows. On a phone every cell carries its column's name. */
export function table(caption, columns, rows) {
  return el("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": caption },
    el("table", {},
      el("caption", { class: "quiet" }, caption),
      el("thead", {}, el("tr", {}, columns.map(({ name, numeric }) =>
        el("th", { scope: "col", class: numeric && "number" }, name)))),
      el("tbody", {}, rows.map((cells) => el("tr", {}, cells.map((cell, index) => {
        const { name, numeric } = columns[index];
        const attributes = { "data-column": name, class: numeric && "number" };
        return index === 0 ? el("th", { scope: "row", ...attributes }, cell) : el("td", attributes, cell);
      }))))));
}
