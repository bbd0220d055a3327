// Elements, made from text: nothing here, nor anywhere in this page, makes markup from a string.
import { plain } from './words.js';

const SVG = 'http://www.w3.org/2000/svg';

export const byId = (id) => document.getElementById(id);

/** make('a', { href, class, onclick }, 'text', node, …): strings become text nodes; null and false are left out. */
export function make(tag, properties, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value == null || value === false) continue;
    if (name.startsWith('on')) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? '' : value);
  }
  made.append(...children.flat(2).filter((child) => child != null && child !== false));
  return made;
}

function drawing(tag, attributes, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** One of the symbols of the page, in the colour of what it stands for. */
export const icon = (name) => drawing('svg', { class: `icon is-${name}`, 'aria-hidden': 'true' }, drawing('use', { href: `#i-${name}` }));

/** The place of a small curve: a body and a line, as paths, since each canvas costs a layer of its own. */
export function curve(width, height, label) {
  const named = label ? { role: 'img', 'aria-label': label } : { 'aria-hidden': 'true' };
  const box = { class: 'curve', viewBox: `0 0 ${width} ${height}`, ...named };
  return drawing('svg', box, drawing('path', {}), drawing('path', {}));
}

/** A place whose text is written only where it differs: what is not touched costs nothing. */
export function slot(element) {
  const node = element.appendChild(document.createTextNode(''));
  return (text) => { if (node.data !== text) node.data = text; };
}

/** Runs `draw` only when what it depends on is not as the last time. */
export function whenChanged(draw) {
  let last;
  return (key, ...rest) => {
    const text = JSON.stringify(key);
    if (text !== last) { last = text; draw(...rest); }
  };
}

/** Tells those who do not see the page. */
export const announce = (text) => { byId('said').textContent = text; };

export const kernelHash = (name) => `#/kernel/${encodeURIComponent(name)}`;
export const kernelLink = (name, ...children) => make('a', { href: kernelHash(name) }, ...(children.length ? children : [make('bdi', {}, plain(name))]));
export const pane = (title, note, ...inner) => make('div', { class: 'pane' }, make('h2', {}, title, note && make('small', {}, note)), ...inner);

/** A text with a button that copies it. */
export function copyable(text, label) {
  const shown = make('code', {}, plain(text));
  const button = make('button', { type: 'button', class: 'copy', 'aria-label': `Copy: ${label}` }, 'Copy');
  button.addEventListener('click', async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = 'Copied';
      announce(`${label} copied`);
    } catch { // no permission, or no secure context: then by hand
      getSelection().selectAllChildren(shown);
      button.textContent = 'Press Ctrl+C';
    }
    setTimeout(() => { button.textContent = 'Copy'; }, 1500);
  });
  return make('div', { class: 'copyable' }, shown, button);
}
