// The timeline of one kernel on a small canvas: bands, marks of deaths, lines of edits; and what is where on it.
import { announce, byId, make } from './dom.js';
import { cause, count, day, edited, executed, how, minute, moment, plain, shape, span, time } from './words.js';

const STEPS = [1, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 43200, 86400, 172800, 432000].map((s) => s * 1000);
const ILL = new Set(['failed', 'unresponsive', 'waiting', 'backoff']);
const SLACK = 6; // pixels within which a pointer means a thing
const ink = {}, paths = {};

/** Reads the colours from the style sheet; again whenever dark and light change. */
export function readInk() {
  const style = getComputedStyle(document.documentElement);
  for (const name of ['text', 'muted', 'line', 'surface', 'ok', 'start', 'warn', 'bad', 'off', 'edit']) {
    ink[name] = style.getPropertyValue(`--${name}`).trim();
  }
  ink.font = `10.5px ${style.getPropertyValue('--sans')}`;
}

/** Makes the canvas so large, in the pixels of the screen, and clears it. */
export function prepare(canvas, width, height) {
  const ratio = devicePixelRatio || 1, across = Math.round(width * ratio), down = Math.round(height * ratio);
  if (canvas.width !== across || canvas.height !== down) Object.assign(canvas, { width: across, height: down });
  const pen = canvas.getContext('2d');
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  return pen;
}

const bandAt = (bands, at) => Math.max(0, bands.findLastIndex((band) => band.at <= at));

export class Lane {
  /** `moved(x)` is called as a pointer or a key goes to a place, with nothing as it leaves. */
  constructor(app, kernel, height, label = '', moved = () => {}) {
    Object.assign(this, { app, kernel, height, label, moved, width: 0 });
    this.canvas = make('canvas', { class: 'lane', role: 'img', tabindex: '0' });
    this.canvas.addEventListener('pointermove', (event) => this.show(event.offsetX));
    this.canvas.addEventListener('pointerup', (event) => { if (event.pointerType === 'touch') this.show(event.offsetX); });
    for (const leave of ['pointerleave', 'blur']) this.canvas.addEventListener(leave, () => { byId('tip').hidden = true; this.moved(); });
    this.canvas.addEventListener('keydown', (event) => {
      const way = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (way) { event.preventDefault(); this.step(way); }
    });
  }

  draw(width) {
    const { canvas, kernel, height } = this, view = this.app.window(), { start, end, known } = view;
    const pen = prepare(canvas, width, height), scale = width / (end - start), place = (at) => (at - start) * scale;
    const middle = Math.round(height * 0.66), until = Math.min(end, known), deaths = kernel.recent(end, end - start);
    this.width = width;
    for (const { at, event } of this.app.model.edits) if (at >= start && at <= end) drawEdit(pen, Math.round(place(at)), height, event.event);
    const seen = kernel.bands.slice(bandAt(kernel.bands, start)), bands = seen.map(({ at, state }, i) => ({ at, state, to: seen[i + 1]?.at ?? until }));
    // What is ill is drawn last and never thinner than 3 px, so that short trouble does not vanish.
    for (const [layer, least] of [[bands.filter(({ state }) => !ILL.has(state)), 1], [kernel.busy, 1], [bands.filter(({ state }) => ILL.has(state)), 3]]) {
      let drawn = -1;
      for (const { at, to, state = 'busy' } of layer) {
        const from = Math.max(0, place(at)), wide = Math.max(least, place(Math.min(until, to)) - from);
        if (to < start || at >= until || from + wide <= drawn) continue; // thousands within a pixel are one
        drawBand(pen, state, from, middle, wide);
        drawn = Math.round(from) + wide;
      }
    }
    pen.fillStyle = ink.line;
    for (let x = place(until) + 4; x < Math.min(width, place(view.now)) && end > until + 1000; x += 6) pen.fillRect(x, middle - 0.5, 2, 1);
    drawDeaths(pen, kernel.deaths, view, place, width, middle);
    const busy = kernel.busyIn(start, end), told = [kernel.state, deaths ? count(deaths, 'death') : 'no death', busy && `busy for ${span(busy / 1000)}`];
    canvas.setAttribute('aria-label', `Timeline${this.label}: ${told.filter(Boolean).join(', ')} in view. Arrow keys step through what happened.`);
  }

  /** Tells what is at a place, in a box beside it; returns the words. */
  show(x) {
    const { lines, bad } = tellAt(this.kernel, this.app.model.edits, this.app.window(), this.width, x), tip = byId('tip'), box = this.canvas.getBoundingClientRect();
    tip.replaceChildren(make('b', {}, plain(this.kernel.name)), ...lines.map((text, i) => make('span', { class: i ? null : `lead${bad ? ' is-bad' : ''}` }, text)));
    tip.hidden = false;
    const left = Math.max(8, Math.min(innerWidth - tip.offsetWidth - 8, box.left + x + 12));
    const top = box.bottom + 6 + tip.offsetHeight > innerHeight ? box.bottom - tip.offsetHeight - 48 : box.bottom + 6;
    tip.style.transform = `translate(${Math.round(left)}px, ${Math.round(top)}px)`;
    this.moved(box.left + x);
    return lines.join('. ');
  }

  /** Goes to the next thing in view before (-1) or after (1) the place where the keys are. */
  step(way) {
    const { start, end } = this.app.window(), scale = this.width / (end - start), here = this.at ?? end;
    const all = [...this.kernel.bands, ...this.kernel.deaths].map((one) => one.at).filter((at) => at >= start && at <= end).sort((a, b) => a - b);
    const next = way < 0 ? all.findLast((at) => at < here - 2 / scale) : all.find((at) => at > here + 2 / scale);
    if (next == null) return announce(`Nothing ${way < 0 ? 'earlier' : 'later'} in view`);
    this.at = next;
    announce(this.show((next - start) * scale));
  }
}

export const BANDS = { // parts of the height around the middle, the colour, and the gaps of a dashed one
  running: [[[-2, 4]], 'ok'], busy: [[[-4, 8]], 'ok'], unresponsive: [[[-6, 12]], 'warn', 5], failed: [[[-6, 12]], 'bad'], stopped: [[[-0.75, 1.5]], 'off'],
  stopping: [[[-1.5, 3]], 'off'], starting: [[[-3, 1], [2, 1]], 'start'], backoff: [[[-2, 4]], 'warn', 5], waiting: [[[-2, 4]], 'warn', 5], gone: [[]],
};
function drawBand(pen, state, x, middle, wide) {
  const [parts, colour, step = Infinity] = BANDS[state] ?? BANDS.stopped;
  pen.fillStyle = ink[colour];
  for (const [from, tall] of parts) for (let i = 0; i < wide; i += step) pen.fillRect(x + i, middle + from, Math.min(step - 2, wide - i), tall);
}

function drawEdit(pen, x, height, event) {
  const [dash, colour] = { 'config.loaded': [height, 'edit'], 'config.rejected': [4, 'bad'] }[event] ?? [1, 'edit'];
  pen.fillStyle = ink[colour];
  pen.globalAlpha = 0.5;
  for (let y = 0; y < height; y += 2 * dash + 1) pen.fillRect(x, y, 1, dash);
  pen.globalAlpha = 1;
}

function drawDeaths(pen, deaths, { start, end }, place, width, middle) {
  const marks = []; // deaths that would touch are one mark
  for (const { at, event } of deaths) {
    if (at < start || at > end) continue;
    const x = Math.min(width - 6, Math.max(6, place(at))), last = marks.at(-1);
    if (last && x - last.x < 11) Object.assign(last, { event, number: last.number + 1 });
    else marks.push({ x, event, number: 1 });
  }
  for (const { x, event } of marks) mark(pen, shape(event), x, middle);
  drawLabels(pen, marks, width, middle - 14);
}

/** Labels from the newest to the oldest, as far as there is room. */
function drawLabels(pen, marks, width, y) {
  Object.assign(pen, { font: ink.font, textBaseline: 'middle', fillStyle: ink.text, strokeStyle: ink.surface, lineWidth: 4, lineJoin: 'round' });
  let free = width;
  for (const { x, event, number } of marks.reverse()) {
    const label = number > 1 ? `${cause(event)} ×${number}` : cause(event), wide = pen.measureText(label).width;
    const left = Math.min(x - 5, free - wide);
    if (left < 0 || left + wide < x - 30) continue;
    pen.strokeText(label, left, y);
    pen.fillText(label, left, y);
    free = left - 8;
  }
}

/** The symbol of its kind of cause; a rim in the colour of the ground lifts it off its band. */
function mark(pen, kind, x, y) {
  const path = paths[kind] ??= new Path2D(byId(`i-${kind}`).firstElementChild.getAttribute('d'));
  pen.save();
  pen.translate(x, y);
  for (const [colour, lineWidth] of [['surface', 5.5], ['bad', 2]]) {
    Object.assign(pen, { strokeStyle: ink[colour], fillStyle: kind === 'wait' ? ink.surface : ink.bad, lineWidth });
    pen.fill(path);
    pen.stroke(path);
  }
  pen.restore();
}

export function drawAxis(canvas, view, width, height) {
  const pen = prepare(canvas, width, height), { start, end } = view, scale = width / (end - start);
  const step = STEPS.find((span) => span * scale >= (width < 420 ? 62 : 84)) ?? STEPS.at(-1);
  const zone = new Date(end).getTimezoneOffset() * 60e3;
  Object.assign(pen, { font: ink.font, textBaseline: 'middle' });
  let before = '';
  for (let at = Math.ceil((start - zone) / step) * step + zone; at <= end; at += step) {
    const x = (at - start) * scale, today = day(at);
    const label = step >= 86400e3 || (before && before !== today) ? today : step < 60e3 ? time(at) : minute(at);
    before = today;
    pen.fillStyle = ink.line;
    pen.fillRect(Math.round(x), height - 5, 1, 5);
    pen.fillStyle = ink.muted;
    if (x + pen.measureText(label).width + 4 < width) pen.fillText(label, x + 4, height - 9);
  }
}

/** Memory over time. */
export function drawCurve(svg, usage, width, height) {
  if (usage.length < 2) return;
  const most = Math.max(...usage.map(({ memory }) => memory)) || 1, first = usage[0].at, length = usage.at(-1).at - first || 1;
  const points = usage.map(({ at, memory }) => `${(((at - first) / length) * (width - 2) + 1).toFixed(1)} ${(height - 1 - (memory / most) * (height - 3)).toFixed(1)}`);
  svg.firstChild.setAttribute('d', `M${points.join('L')}`);
}

const nearest = (list, at, slack) => list.reduce((best, one) => {
  const away = Math.abs(one.at - at);
  return away <= slack && (!best || away < Math.abs(best.at - at)) ? one : best;
}, null);
const run = (event) => event.generation && `run ${event.generation}${event.pid ? `, pid ${event.pid}` : ''}`;

/** What is told of a place on a lane: true instants, never those that the window cuts off. */
export function tellAt(kernel, edits, view, width, x) {
  const scale = width / (view.end - view.start), at = view.start + x / scale, slack = SLACK / scale, { now } = view;
  const death = nearest(kernel.deaths, at, slack);
  if (death) {
    const { event } = death, near = kernel.deaths.filter((other) => Math.abs(other.at - death.at) <= slack).length;
    return { at: death.at, bad: true, lines: [
      `${moment(death.at, now)}  ${how(event)}`,
      event.uptime != null && `after ${span(event.uptime)}, ${run(event) || 'run unknown'}`,
      event.executing && `${executed(death.at, event.executing)}: ${plain(event.executing.code)}`,
      event.output_tail?.length && `last line: ${plain(event.output_tail.at(-1)).trim()}`,
      near > 1 && `${count(near, 'death')} here: zoom in to tell them apart`,
    ].filter(Boolean) };
  }
  const edit = nearest(edits, at, slack);
  if (edit) return { at: edit.at, lines: [`${moment(edit.at, now)}  ${edited(edit.event)}`, ...(edit.event.mistakes ?? []).slice(0, 3).map(plain)] };
  const index = bandAt(kernel.bands, at), band = kernel.bands[index], next = kernel.bands[index + 1]?.at;
  if (!band || band.at > at) return { at, lines: [`${moment(at, now)}  nothing is known of then`] };
  const busy = kernel.busy.findLast((one) => one.at <= at + slack && one.to >= at - slack), all = kernel.busyIn(band.at, next ?? now);
  const work = busy ? `busy for ${span((busy.to - busy.at) / 1000)}: ${moment(busy.at, now)} → ${moment(busy.to, now)}` : all && `busy for ${span(all / 1000)} of it`;
  const lines = [`${band.state} for ${span(((next ?? now) - band.at) / 1000)}`, `${moment(band.at, now)} → ${next ? moment(next, now) : 'now'}`];
  return { at: band.at, lines: [...lines, work, run(band.event)].filter(Boolean) };
}
