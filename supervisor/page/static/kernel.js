// One kernel: what is so, why it died each time, what it wrote, how it is set, how to connect, orders.
import { byId, copyable, icon, instance, make, slot, whenChanged } from './dom.js';
import { drawAxis, drawCurve, Lane } from './lane.js';
import { bytes, capital, CHECKS, count, executed, how, moment, plain, shape, short, span, why } from './words.js';

export const ORDERS = {
  stopped: ['start'], failed: ['reset'], backoff: ['reset', 'stop'], waiting: ['stop'], starting: ['stop', 'kill'], stopping: ['kill'], gone: [],
  running: ['restart', 'interrupt', 'stop', 'kill'], unresponsive: ['restart', 'interrupt', 'stop', 'kill'],
};
const LABELS = { start: 'Start', reset: 'Try again' };
const SHOWN = 12, AXIS = 30, LANE = 56, CURVE = [190, 30], HOUR = 3600e3, MOST_OUTPUT = 200_000;

export class KernelView {
  constructor(app, kernel) {
    Object.assign(this, { app, kernel, name: kernel?.name, stop: new AbortController(), words: new Map() });
    if (!kernel) {
      this.element = make('p', { class: 'empty' }, 'There is no such kernel. ', make('a', { href: '#/' }, 'All kernels'));
      return;
    }
    Object.assign(this, instance('kernel-view'));
    this.header = whenChanged((now) => this.writeHeader(now));
    this.history = whenChanged((now) => this.writeHistory(now));
    for (const part of ['run', 'restarts', 'core', 'threads', 'launch', 'memory']) this[part] = slot(this[part]);
    this.lane = new Lane(app, this.kernel, LANE);
    this.place.append(this.lane.canvas);
    this.ways.append(...this.connect());
    new ResizeObserver(() => app.redraw()).observe(this.element);
    this.load();
  }

  /** The last words of its deaths, which the stream of events leaves out. */
  async loadWords() {
    const path = `events?kernel=${encodeURIComponent(this.name)}&event=kernel.died&last=200`;
    await this.app.source.lines(path, (event) => this.words.set(event.seq, event), undefined, this.stop).catch(() => {});
  }

  /** What is asked for as long as this kernel is looked at: its settings, its output. */
  async load() {
    const { app } = this, path = `kernels/${encodeURIComponent(this.name)}`;
    app.source.ask(`${path}/settings`).then(({ settings }) => this.writeSettings(settings), () => {});
    while (!this.stop.signal.aborted) {
      let text = '';
      await app.source.lines(`${path}/output?last=200&follow=1`, (line) => { text = (text + line.text).slice(-MOST_OUTPUT); }, () => this.writeOutput(text), this.stop).catch(() => {});
      await new Promise((resolve) => { setTimeout(resolve, 2000); });
    }
  }

  close() { this.stop.abort(); }
  sees(kernel) { return kernel === this.kernel; }
  seen() { return this.kernel ? [this.kernel] : []; }

  update(now, changed) {
    const { kernel, app } = this;
    if ((app.asked() ?? kernel) !== kernel) return app.route(); // it has come, or come again
    if (!kernel) return;
    kernel.judge(now);
    const { view } = kernel, signs = [kernel.icon, kernel.deaths.length, kernel.bands.length, view.pid, view.pending, app.isAway];
    this.header([signs, why(kernel, now)], now);
    this.history([signs, this.more, this.words.size], now);
    if (this.deaths !== kernel.deaths.length) { this.deaths = kernel.deaths.length; this.loadWords(); }
    this.writeFacts(now);
    const width = this.lane.canvas.clientWidth;
    if (!width || !(app.isMoved || changed.has(kernel))) return;
    drawAxis(this.axis, app.window(), width, AXIS);
    this.lane.draw(width);
  }

  writeHeader(now) {
    const { kernel, app } = this, { view, state, group } = kernel, text = why(kernel, now), held = document.activeElement?.dataset?.verb;
    const orders = (ORDERS[state] ?? []).map((verb, i) => make('button', {
      type: 'button', 'data-verb': verb, class: `order${!i && group === 'ill' ? ' is-first' : ''}`, disabled: app.isAway, onclick: () => this.order(verb),
    }, LABELS[verb] ?? `${capital(verb)}…`));
    if (app.hasLab && view.pid) orders.push(make('button', { type: 'button', class: 'order', onclick: () => app.openNotebook(view.id) }, 'Open in JupyterLab'));
    const title = make('h1', {}, icon(kernel.icon), make('bdi', {}, plain(this.name)), make('span', {}, kernel.icon === 'shaky' ? 'running, shaky' : state));
    this.head.replaceChildren(make('p', { class: 'crumb' }, make('a', { href: '#/' }, 'Kernels'), ' / '),
      make('div', { class: 'person' }, title, make('div', { class: 'orders', role: 'group', 'aria-label': 'Orders' }, orders)),
      ...[text && make('p', { class: `lead-why is-${group}` }, text, state === 'failed' ? ' It is left alone until you try again.' : '')].filter(Boolean),
      ...(view.pending?.length ? [make('p', { class: 'lead-why' }, `Edited, and in force from its next start: ${view.pending.map(plain).join(', ')}.`)] : []));
    if (held) this.head.querySelector(`[data-verb=${held}]`)?.focus();
  }

  writeFacts(now) {
    const { kernel } = this, { view } = kernel, usage = view.pid ? kernel.usage.at(-1) : null, left = (new Date(view.next_start_at) - now) / 1000;
    const waits = view.phase === 'backoff' && left > 0 ? `; starts in ${short(left)}` : '';
    this.run(view.pid ? `${view.generation}, pid ${view.pid}, up ${short((now - kernel.born) / 1000)}` : `none; the last was ${view.generation}${waits}`);
    this.restarts(`${view.restarts}; ${count(kernel.recent(now, HOUR), 'death')} in the last hour`);
    this.core(usage ? `${usage.core.toFixed(2)} of one` : '–');
    this.threads(usage ? `${usage.threads}, ${usage.descriptors}; ${count(usage.children, 'child', 'children')}` : '–');
    this.launch(plain(view.launch));
    this.memory(usage ? `${bytes(usage.memory)}, at most ${bytes(Math.max(...kernel.usage.map((sample) => sample.memory)))}` : '–');
    drawCurve(this.curve, kernel.usage, ...CURVE);
  }

  /** What happened, the newest first; deaths in a row that look the same are told once. */
  writeHistory(now) {
    const { kernel } = this, told = ['kernel.stopped', 'kernel.adopted', 'kernel.unresponsive'];
    const others = kernel.bands.filter(({ event }) => told.includes(event.event));
    const look = ({ event }) => JSON.stringify([event.event, how(event), event.output_tail?.at(-1), event.executing?.code]);
    const items = [];
    const deaths = kernel.deaths.map(({ at, event }) => ({ at, event: this.words.get(event.seq) ?? event }));
    for (const item of [...deaths, ...others].sort((a, b) => b.at - a.at)) {
      const last = items.at(-1);
      if (item.event.event === 'kernel.died' && last && look(last.item) === look(item)) last.like.push(item);
      else items.push({ item, like: [] });
    }
    const shown = this.more ? items : items.slice(0, SHOWN), rest = items.length - shown.length;
    const open = shown.find(({ item }) => item.event.event === 'kernel.died');
    const lines = shown.map((one) => (one.item.event.event === 'kernel.died' ? this.death(one, now, one === open) : this.other(one.item, now)));
    const more = () => { this.more = true; this.history([0], this.app.now()); };
    if (rest > 0) lines.push(make('li', {}, make('span', {}), make('button', { type: 'button', class: 'link earlier', onclick: more }, `${rest} earlier`)));
    if (!items.length) lines.push(make('li', {}, icon('running'), make('span', {}, 'Nothing but what was wanted.')));
    this.past.replaceChildren(...lines);
  }

  death({ item: { at, event }, like }, now, isOpen) {
    const tail = event.output_tail ?? [], { executing } = event;
    const run = [`Run ${event.generation}`, event.uptime != null && ` lasted ${span(event.uptime)}`, event.pid && `, pid ${event.pid}`, event.detail && `. ${plain(event.detail)}`];
    const head = executing ? [`${executed(at, executing)}: `, make('code', {}, plain(executing.code))] : tail.length === 1 ? 'last line' : `last ${tail.length} lines`;
    const words = (executing || tail.length > 0) && make('details', { open: isOpen }, make('summary', {}, head), tail.length > 0 && make('pre', { class: 'tail', tabindex: '0', 'aria-label': 'Last lines' }, plain(tail.join('\n'))));
    const same = like.length > 0 && make('p', { class: 'small' }, `The same ${count(like.length, 'time')} before, since ${moment(like.at(-1).at, now)}`);
    return make('li', {}, icon(shape(event)), make('div', {}, make('b', {}, capital(how(event))), ' ', when(at, event, now), make('p', { class: 'small' }, run.filter(Boolean).join('')), words, same));
  }

  other({ at, event }, now) {
    const [glyph, text] = {
      'kernel.stopped': ['stopped', `Stopped${event.reason ? `: ${plain(event.reason)}` : ''}`],
      'kernel.adopted': ['running', 'Found alive by a new daemon, its memory is intact'],
      'kernel.unresponsive': ['unresponsive', `Did not answer ${CHECKS[event.check] ?? 'its check'}, ${count(event.misses, 'time')} in a row`],
    }[event.event];
    return make('li', {}, icon(glyph), make('div', {}, make('b', {}, text), ' ', when(at, event, now)));
  }

  connect() {
    const { view } = this.kernel, file = plain(view.connection_file).split('/').at(-1);
    const ways = { 'A prompt': `kernel-supervisor console ${this.name}`, 'With Jupyter': `jupyter console --existing ${file}`, 'Run something': `kernel-supervisor exec ${this.name} 'print(6 * 7)'`, 'Connection file': view.connection_file };
    return Object.entries(ways).flatMap(([label, text]) => [make('p', { class: 'how' }, label), copyable(text, label)]);
  }

  writeSettings(settings) {
    const pending = new Set(this.kernel.view.pending);
    const table = (rows) => make('table', { class: 'settings' }, make('tbody', {}, rows.map(({ key, value, origin }) => make('tr', { class: `${origin === 'own' ? 'is-own' : ''}${pending.has(key) ? ' pending' : ''}` },
      make('th', { scope: 'row' }, key), make('td', {}, make('code', {}, plain(value))), make('td', {}, pending.has(key) ? 'from its next start' : origin)))));
    const set = settings.filter(({ origin }) => origin !== 'built in'), rest = settings.filter(({ origin }) => origin === 'built in');
    this.settings.replaceChildren(table(set), make('details', {}, make('summary', {}, `${rest.length} built in`), table(rest)));
  }

  writeOutput(text) {
    const box = this.output, isAtEnd = box.scrollTop + box.clientHeight > box.scrollHeight - 20;
    box.textContent = plain(text) || 'Nothing was written.';
    if (isAtEnd) box.scrollTop = box.scrollHeight;
  }

  /** Gives an order, after a question where something can be lost; the safe answer has the focus. */
  order(verb) {
    const { view, usage, born } = this.kernel, dialog = byId('ask'), ask = instance('question'), label = LABELS[verb] ?? capital(verb);
    if (LABELS[verb]) return this.app.order(this.name, verb);
    ask.element.className = `ask ${verb}`;
    ask.title.append(`${label} ${plain(this.name)}?`);
    ask.process.append(view.pid ? `pid ${view.pid}, up ${short((this.app.now() - born) / 1000)}` : 'no process');
    ask.memory.append(usage.length ? ` (${bytes(usage.at(-1).memory)})` : '');
    ask.go.append(label);
    dialog.replaceChildren(ask.element);
    dialog.onclose = () => { if (dialog.returnValue === 'go') this.app.order(this.name, verb, view.generation); dialog.returnValue = ''; };
    dialog.showModal();
  }
}

const when = (at, event, now) => make('time', { datetime: plain(event.timestamp) }, moment(at, now), ` (${short((now - at) / 1000)} ago)`);
