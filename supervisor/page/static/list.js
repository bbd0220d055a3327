// All kernels: the verdict, the filter, and one row a kernel whose middle is its timeline.
import { become, icon, instance, kernelHash, kernelLink, make, slot, whenChanged } from './dom.js';
import { drawAxis, drawCurve, Lane } from './lane.js';
import { bytes, cause, count, plain, short, why } from './words.js';

const ORDERS = {
  worst: (kernel) => kernel.rank,
  file: () => 0,
  name: (kernel) => kernel.name,
  memory: (kernel) => -(kernel.usage.at(-1)?.memory ?? 0),
  restarts: (kernel) => -kernel.view.restarts,
};
const HEIGHT = 40, AXIS = 30, CURVE = [72, 22];
const CLICK = 6; // pixels: less is no drag
const RESTING = 4000; // rows are put in order at most so often, and never under a pointer

export class List {
  constructor(app) {
    this.app = app;
    this.rows = new Map();
    this.width = 0;
    this.arranged = 0;
    this.verdict = whenChanged((...told) => this.writeVerdict(...told));
    Object.assign(this, instance('list-view'));
    this.form.addEventListener('input', () => this.arrange());
    // What is out of view is only marked, and has no canvas.
    this.sight = new IntersectionObserver((entries) => entries.forEach(({ target: { row }, isIntersecting }) => {
      row.isSeen = isIntersecting;
      if (row.isSeen) this.paint(row); else row.lane.canvas.width = 0;
      if (row.isSeen && !row.kernel.usage.length) app.measureSoon();
    }), { rootMargin: '120px' });
    new ResizeObserver(() => { this.width = 0; this.app.redraw(); }).observe(this.table);
    this.listen();
  }

  makeRow(kernel) {
    const made = instance('row'), row = { kernel, isStale: true, written: 0, element: made.element, glyph: made.glyph, note: made.note, curve: made.curve };
    for (const part of ['state', 'death', 'memory', 'core', 'restarts']) row[part] = slot(made[part]);
    made.link.href = kernelHash(kernel.name);
    made.name.append(plain(kernel.name));
    row.lane = new Lane(this.app, kernel, HEIGHT, ` of ${plain(kernel.name)}`, (x) => this.point(row, x));
    row.lane.canvas.tabIndex = this.rows.size ? -1 : 0;
    made.place.append(row.lane.canvas);
    made.place.row = made.element.row = row;
    this.sight.observe(made.element);
    return row;
  }

  /** Brings the rows in line with the model: which there are, and in which order. */
  arrange() {
    const now = this.app.now(), all = this.app.model.all(now), { filter, order, group } = Object.fromEntries(new FormData(this.form));
    for (const [name, row] of this.rows) if (this.app.model.kernels.get(name) !== row.kernel) { row.element.remove(); this.rows.delete(name); }
    for (const kernel of all) if (!this.rows.has(kernel.name)) this.rows.set(kernel.name, this.makeRow(kernel));
    const searched = (kernel) => `${kernel.name} ${kernel.state} ${kernel.view.last_death ? cause(kernel.view.last_death) : ''}`.toLowerCase();
    const shown = all.filter((kernel) => (group === 'all' || kernel.group === group) && searched(kernel).includes(filter.toLowerCase()));
    const keys = new Map(shown.map((kernel) => [kernel, ORDERS[order](kernel)]));
    shown.sort((a, b) => (keys.get(a) < keys.get(b) ? -1 : Number(keys.get(a) > keys.get(b))));
    const wanted = shown.map((kernel) => this.rows.get(kernel.name).element), kept = new Set(wanted);
    for (const element of [...this.body.children]) if (!kept.has(element)) element.remove();
    wanted.forEach((element, i) => { if (this.body.children[i] !== element) this.body.insertBefore(element, this.body.children[i] ?? null); });
    this.empty.hidden = shown.length > 0;
    this.arranged = now;
  }

  /** At each beat: only what changed, and only what is seen. */
  update(now, changed) {
    const all = this.app.model.all(now), isNew = all.some((kernel) => this.rows.get(kernel.name)?.kernel !== kernel);
    const isTouched = this.table.matches(':hover') || this.body.contains(document.activeElement);
    if (isNew || this.rows.size !== all.length || (changed.size && !isTouched && Math.abs(now - this.arranged) > RESTING)) this.arrange();
    for (const row of this.rows.values()) {
      row.isStale ||= changed.has(row.kernel);
      if (row.isSeen && (row.isStale || this.app.isMoved || Math.abs(now - row.written) > (row.kernel.state === 'backoff' ? 1000 : 5000))) this.paint(row);
    }
    if (this.app.isMoved) drawAxis(this.axis, this.app.window(), this.laneWidth(), AXIS);
    if (Math.abs(now - (this.judged ?? 0)) > 1000) { this.judged = now; this.judge(all, now); }
  }

  sees(kernel) { return this.rows.get(kernel.name)?.isSeen ?? true; }
  seen() { return [...this.rows.values()].filter((row) => row.isSeen).map((row) => row.kernel); }
  laneWidth() { return (this.width ||= this.axis.parentNode.clientWidth); }

  paint(row) {
    const { kernel } = row, { view } = kernel, now = this.app.seenAt(), usage = view.pid ? kernel.usage.at(-1) : null, death = view.last_death;
    const look = `row is-${kernel.group}`;
    if (row.element.className !== look) row.element.className = look;
    if (row.shown !== kernel.icon) become(row.glyph, row.shown = kernel.icon);
    row.note.hidden = !view.pending?.length;
    const left = view.phase === 'backoff' && view.next_start_at ? (new Date(view.next_start_at) - now) / 1000 : 0;
    row.state(left > 0 ? `starts in ${short(left)}` : `${kernel.state} ${short((now - (kernel.state === 'running' ? kernel.born : kernel.since)) / 1000)}`);
    row.death(death ? `${cause(death)}, ${short((now - Date.parse(death.at)) / 1000)} ago` : '–');
    row.memory(usage ? bytes(usage.memory) : '–');
    row.core(usage ? usage.core.toFixed(2) : '–');
    row.restarts(String(view.restarts));
    drawCurve(row.curve, kernel.usage, ...CURVE);
    if (row.isStale || this.app.isMoved || !row.lane.canvas.width) row.lane.draw(this.laneWidth());
    Object.assign(row, { isStale: false, written: this.app.now() });
  }

  /** What one reads first: how many are ill, which, and why; like causes are told once. */
  judge(all, now) {
    const numbers = { all: all.length, ill: 0, shaky: 0, well: 0, stopped: 0 };
    for (const kernel of all) numbers[kernel.group]++;
    const shown = all.filter(({ group }) => group === 'ill' || group === 'shaky').sort((a, b) => a.rank - b.rank);
    const told = new Map();
    for (const kernel of shown) {
      const text = why(kernel, now), key = kernel.icon + text;
      if (told.has(key)) told.get(key).like.push(kernel.name); else told.set(key, { kernel, text, like: [] });
    }
    const rows = [...told.values()];
    this.verdict([numbers, rows.map(({ kernel, text, like }) => [kernel.name, kernel.icon, text, like])], numbers, rows);
  }

  writeVerdict(numbers, rows) {
    const most = innerWidth < 640 ? 3 : 7, { ill } = numbers;
    for (const chip of this.chips.children) chip.lastChild.textContent = numbers[chip.firstChild.value];
    const title = ill ? `${count(ill, 'kernel')} ill` : numbers.shaky ? 'No kernel ill' : numbers.all ? 'All well' : 'No kernel is declared';
    const others = [numbers.shaky && `${numbers.shaky} shaky`, `${numbers.well} well`, numbers.stopped && `${numbers.stopped} stopped`];
    this.title.replaceChildren(title, ' ', make('span', {}, others.filter(Boolean).join(', ')));
    const items = rows.slice(0, most).map(({ kernel, text, like }) => make('li', { class: `is-${kernel.group}` }, icon(kernel.icon), kernelLink(kernel.name),
      make('span', { class: 'word' }, kernel.icon === 'shaky' ? 'shaky' : kernel.state), make('span', { class: 'why' }, text, like.length ? ` The same: ${like.slice(0, 4).map(plain).join(', ')}${like.length > 4 ? ` and ${like.length - 4} more` : ''}.` : '')));
    const show = () => this.table.scrollIntoView();
    if (rows.length > most) items.push(make('li', { class: 'more' }, make('button', { type: 'button', class: 'link', onclick: show }, `and ${rows.length - most} more`)));
    this.ills.replaceChildren(...items);
  }

  /** A line through all lanes at the place that a pointer or a key is at; none where it left. */
  point(row, x) {
    this.cross.hidden = x == null;
    const edge = this.table.getBoundingClientRect().left;
    if (x != null) this.cross.style.transform = `translateX(${x - edge}px)`;
    if (!this.from || x == null) return;
    Object.assign(this.pick.style, { left: `${Math.min(this.from, x) - edge}px`, width: `${Math.abs(x - this.from)}px` });
    this.pick.hidden = Math.abs(x - this.from) < CLICK;
  }

  // A drag over a lane chooses what to zoom to, a click opens the kernel; keys go from lane to lane.
  listen() {
    this.body.addEventListener('pointerdown', (event) => {
      if (event.pointerType !== 'mouse' || event.button !== 0 || !event.target.matches('.lane')) return;
      event.preventDefault();
      event.target.setPointerCapture(event.pointerId);
      this.from = event.clientX;
    });
    this.body.addEventListener('pointerup', (event) => {
      const { from } = this, view = this.app.window(), scale = (view.end - view.start) / this.laneWidth();
      this.from = null;
      this.pick.hidden = true;
      if (!from || !event.target.matches('.lane')) return;
      const edge = event.target.getBoundingClientRect().left, wide = Math.abs(event.clientX - from);
      if (wide < CLICK) location.hash = kernelHash(event.target.parentNode.row.kernel.name);
      else this.app.zoomTo(Math.max(10e3, wide * scale), view.start + (Math.max(event.clientX, from) - edge) * scale);
    });
    this.body.addEventListener('keydown', (event) => {
      const row = event.target.matches('.lane') && event.target.parentNode.row, side = { ArrowUp: 'previousSibling', ArrowDown: 'nextSibling' }[event.key];
      const next = row && side && row.element[side]?.row;
      if (row && event.key === 'Enter') location.hash = kernelHash(row.kernel.name);
      if (!next) return;
      event.preventDefault();
      row.lane.canvas.tabIndex = -1; // one stop for the tab key, not two hundred
      next.lane.canvas.tabIndex = 0;
      next.lane.canvas.focus();
    });
  }
}
