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

/** A copy of a template: its element, and those within it that have a part to play, by name. */
export function instance(id) {
  const element = byId(id).content.firstElementChild.cloneNode(true);
  return { element, ...Object.fromEntries([...element.querySelectorAll('[data-part]')].map((part) => [part.dataset.part, part])) };
}

/** One of the symbols of the page, in the colour of what it stands for. */
export function icon(name) {
  const svg = document.createElementNS(SVG, 'svg');
  svg.append(document.createElementNS(SVG, 'use'));
  svg.setAttribute('aria-hidden', 'true');
  return become(svg, name);
}

/** Has an icon show another symbol. */
export function become(svg, name) {
  svg.setAttribute('class', `icon is-${name}`);
  svg.firstElementChild.setAttribute('href', `#i-${name}`);
  return svg;
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
export const kernelLink = (name) => make('a', { href: kernelHash(name) }, make('bdi', {}, plain(name)));

/** A text with a button that copies it. */
export function copyable(text, label) {
  const shown = make('code', {}, plain(text));
  const button = make('button', { type: 'button', class: 'copy', 'aria-label': `Copy: ${label}` }, 'Copy');
  button.addEventListener('click', () => {
    getSelection().selectAllChildren(shown);
    button.textContent = document.execCommand('copy') ? 'Copied' : 'Press Ctrl+C'; // navigator.clipboard is not there without https
    announce(`${label}: ${button.textContent}`);
    setTimeout(() => { button.textContent = 'Copy'; }, 1500);
  });
  return make('div', { class: 'copyable' }, shown, button);
}
