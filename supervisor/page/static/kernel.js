// One kernel: what is so, why it died each time, what it wrote, how it is set, how to connect, orders.
import { byId, copyable, curve, icon, make, pane, whenChanged } from './dom.js';
import { drawAxis, drawCurve, Lane, mark, prepare } from './lane.js';
import { legend, zoom } from './list.js';
import { bytes, capital, CHECKS, count, how, moment, plain, price, shape, short, span, why } from './words.js';

const ORDERS = {
  stopped: ['start'], failed: ['reset'], backoff: ['reset', 'stop'], starting: ['stop', 'kill'], stopping: ['kill'], gone: [],
  running: ['restart', 'interrupt', 'stop', 'kill'], unresponsive: ['restart', 'interrupt', 'stop', 'kill'],
};
const LABELS = { start: 'Start', reset: 'Try again' };
const SHOWN = 12, AXIS = 30, LANE = 56, CURVE = [190, 30], HOUR = 3600e3, MOST_OUTPUT = 200_000;

export class KernelView {
  constructor(app, name) {
    Object.assign(this, { app, name, stop: new AbortController() });
    this.element = make('section', { class: 'kernel' });
    this.kernel = app.model.kernels.get(name);
    if (!this.kernel) return void this.element.append(make('p', { class: 'empty' }, `No kernel is named “${plain(name)}”. `, make('a', { href: '#/' }, 'All kernels')));
    this.header = whenChanged((now) => this.writeHeader(now));
    this.history = whenChanged((now) => this.writeHistory(now));
    this.facts = whenChanged((rows) => this.writeFacts(rows));
    this.build();
    this.load();
  }

  build() {
    const { app, name } = this;
    this.head = make('div', {});
    this.lane = new Lane(app, this.kernel, LANE);
    this.axis = make('canvas', { class: 'axis', 'aria-hidden': 'true' });
    this.past = make('ol', { class: 'history' });
    this.now = make('dl', { class: 'facts' });
    this.output = make('pre', { class: 'tail', tabindex: '0', 'aria-label': 'Output' }, 'Nothing was written.');
    this.settings = make('div', {});
    const left = make('div', {}, pane('What happened', '', this.past), pane('Output', 'stdout and stderr of the process, as it writes', this.output));
    const right = make('div', {}, pane('Now', '', this.now), this.connect(), pane('Settings', 'and where each is from', this.settings));
    const timeline = make('div', { class: 'pane big' }, make('div', { class: 'tools' }, make('h2', {}, 'Timeline'), zoom(app)), this.axis, this.lane.canvas);
    this.element.append(this.head, timeline, make('div', { class: 'panes' }, left, right), legend());
    new ResizeObserver(() => app.redraw()).observe(this.element);
    document.title = `${plain(name)} · Kernel Supervisor`;
  }

  /** What is asked for once this kernel is looked at: the last words of its deaths, its settings, its output. */
  async load() {
    const { app } = this, path = `kernels/${encodeURIComponent(this.name)}`, name = encodeURIComponent(this.name);
    app.source.ask(`${path}/settings`).then(({ settings }) => this.writeSettings(settings), () => this.settings.replaceChildren('Not known at the moment.'));
    const known = new Map(this.kernel.deaths.map(({ event }) => [event.timestamp + event.generation, event]));
    await app.source.lines(`events?kernel=${name}&event=kernel.died&last=200`, (event) => Object.assign(known.get(event.timestamp + event.generation) ?? {}, event), undefined, this.stop).catch(() => {});
    this.history([], app.now());
    for (let text = ''; !this.stop.signal.aborted;) {
      const wanted = text ? 'last=0&follow=1' : 'last=200&follow=1';
      await app.source.lines(`${path}/output?${wanted}`, (line) => { text = (text + line.text).slice(-MOST_OUTPUT); }, () => this.writeOutput(text), this.stop).catch(() => {});
      await new Promise((resolve) => { setTimeout(resolve, 2000); });
    }
  }

  close() { this.stop.abort(); }
  sees(kernel) { return kernel === this.kernel; }
  seen() { return this.kernel ? [this.name] : []; }

  update(now, changed) {
    const { kernel, app } = this;
    if (!kernel) return;
    kernel.judge(now);
    const { view } = kernel, signs = [kernel.icon, kernel.deaths.length, kernel.bands.length, view.pid, view.pending, app.isAway];
    this.header([signs, why(kernel, now)], now);
    this.history([signs, this.more], now);
    this.facts([this.rows(now), kernel.usage.at(-1)?.at], this.rows(now));
    if (app.isMoved || changed.has(kernel)) this.draw();
  }

  draw() {
    const width = this.lane.canvas.clientWidth;
    if (!width) return;
    drawAxis(this.axis, this.app.model.edits, this.app.window(), width, AXIS);
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

  rows(now) {
    const { kernel } = this, { view } = kernel, usage = view.pid ? kernel.usage.at(-1) : null;
    const left = view.phase === 'backoff' && view.next_start_at && `in ${short((new Date(view.next_start_at) - now) / 1000)}`;
    return [
      ['Run', view.pid ? `${view.generation}, pid ${view.pid}, up ${short((now - kernel.born) / 1000)}` : `none; the last was ${view.generation}`],
      ['Restarts', `${view.restarts}; ${count(kernel.recent(now, HOUR), 'death')} in the last hour`],
      ['Next start', left],
      ['Core', usage && `${usage.core.toFixed(2)} of one`],
      ['Threads, files', usage && `${usage.threads}, ${usage.descriptors}; ${count(usage.children, 'child', 'children')}`],
      ['Launched as', plain(view.launch)],
    ].filter(([, text]) => text);
  }

  writeFacts(rows) {
    const { usage } = this.kernel, line = curve(...CURVE, 'Memory over time');
    const most = usage.length && `${bytes(usage.at(-1).memory)}, at most ${bytes(Math.max(...usage.map((sample) => sample.memory)))}`;
    this.now.replaceChildren(...rows.flatMap(([key, text]) => [make('dt', {}, key), make('dd', {}, text)]), ...(most ? [make('dt', {}, 'Memory'), make('dd', {}, most, line)] : []));
    drawCurve(line, usage, ...CURVE);
  }

  /** What happened, the newest first; deaths in a row that look the same are told once. */
  writeHistory(now) {
    const { kernel } = this, told = ['kernel.stopped', 'kernel.adopted', 'kernel.unresponsive'];
    const others = kernel.bands.filter(({ event }) => told.includes(event.event));
    const look = ({ event }) => JSON.stringify([event.event, how(event), event.output_tail?.at(-1), event.executing?.code]);
    const items = [];
    for (const item of [...kernel.deaths, ...others].sort((a, b) => b.at - a.at)) {
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
    const glyph = make('canvas', { 'aria-hidden': 'true' }), tail = event.output_tail ?? [], { executing } = event;
    mark(prepare(glyph, 14, 14), shape(event), 7, 7);
    const run = [`Run ${event.generation}`, event.uptime != null && ` lasted ${span(event.uptime)}`, event.pid && `, pid ${event.pid}`, event.detail && `. ${plain(event.detail)}`];
    const head = executing ? [`was executing ${plain(executing.label)} for ${span(executing.seconds)}: `, make('code', {}, plain(executing.code))] : tail.length === 1 ? 'last line' : `last ${tail.length} lines`;
    const words = (executing || tail.length > 0) && make('details', { open: isOpen }, make('summary', {}, head), tail.length > 0 && make('pre', { class: 'tail', tabindex: '0', 'aria-label': 'Last lines' }, plain(tail.join('\n'))));
    const same = like.length > 0 && make('details', {}, make('summary', {}, `the same ${count(like.length, 'time')} before, since ${moment(like.at(-1).at, now)}`),
      make('ul', { class: 'small' }, like.map((other) => make('li', {}, `${moment(other.at, now)}${other.event.uptime != null ? `, after ${span(other.event.uptime)}` : ''}`))));
    return make('li', {}, glyph, make('div', {}, make('b', {}, capital(how(event))), ' ', when(at, event, now), make('p', { class: 'small' }, run.filter(Boolean).join('')), words, same));
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
    return pane('Connect', 'the same before and after a restart', ...Object.entries(ways).flatMap(([label, text]) => [make('p', { class: 'how' }, label), copyable(text, label)]));
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
    const cost = price(verb, this.kernel), box = byId('ask'), label = LABELS[verb] ?? capital(verb), { view } = this.kernel;
    if (!cost) return this.app.order(this.name, verb);
    box.replaceChildren(make('h2', { id: 'ask-title' }, `${label} ${plain(this.name)}?`), make('p', { class: 'crumb' }, view.pid ? `pid ${view.pid}, up ${short((this.app.now() - this.kernel.born) / 1000)}` : 'no process'),
      make('h3', {}, 'Is lost'), make('ul', { class: 'lost' }, cost.lost.map((text) => make('li', {}, text))), make('h3', {}, 'Stays'), make('p', { class: 'kept' }, cost.stays),
      make('form', { method: 'dialog' }, make('button', { class: 'order', autofocus: true }, 'Leave it'), make('button', { class: 'order go', value: 'go' }, label)));
    box.onclose = () => { if (box.returnValue === 'go') this.app.order(this.name, verb, view.generation); box.returnValue = ''; };
    box.showModal();
  }
}

const when = (at, event, now) => make('time', { datetime: plain(event.timestamp) }, moment(at, now), ` (${short((now - at) / 1000)} ago)`);
