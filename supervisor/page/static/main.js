// The page: which view is shown, the clock, and one beat for all that changes.
import { announce, byId, instance, kernelHash, make } from './dom.js';
import { FileView } from './file.js';
import { KernelView } from './kernel.js';
import { readInk } from './lane.js';
import { List } from './list.js';
import { Model } from './model.js';
import { Source } from './source.js';
import { count, plain, short, time } from './words.js';

const BEAT = 200; // milliseconds: a change is seen within this, and twenty of them cost one drawing
const MEASURING = 10e3; // usage is asked for this often, of the kernels in view only
const OVERLAP = 10e3; // what is asked for begins so much before what is known: two clocks tell of it

class App {
  constructor() {
    this.model = new Model();
    this.source = new Source(this);
    this.changed = new Set();
    this.isAway = true;
    this.awaySince = Date.now();
    this.hasLab = 'lab' in document.documentElement.dataset;
    readInk();
    this.list = new List(this);
    this.shown = this.list;
    this.zoom = instance('zoom').element;
    this.legend = instance('legend').element;
    this.zoom.addEventListener('click', ({ target: { dataset } }) => { if (dataset.span != null) this.zoomTo(dataset.span * 1000 || this.span); });
    this.zoomTo(3600e3);
    document.querySelector('.skip').addEventListener('click', (event) => { event.preventDefault(); byId('main').focus(); });
    addEventListener('hashchange', () => this.route());
    addEventListener('keydown', (event) => this.key(event));
    for (const query of ['(prefers-color-scheme: dark)', '(forced-colors: active)']) matchMedia(query).addEventListener('change', () => this.recolour());
    document.addEventListener('visibilitychange', () => this.beat());
    setInterval(() => this.beat(), 1000); // the clock; changes ask for an earlier beat
    setInterval(() => this.measure(), MEASURING);
    this.source.follow();
  }

  now() { return this.source.now(); }
  seenAt() { return this.isAway ? this.awaySince : this.now(); } // what is told is of then

  /** The part of time that is shown, and until when anything is known. */
  window() {
    const now = this.now(), end = this.end ?? now;
    return { start: end - this.span, end, now, known: this.seenAt() };
  }

  status(status) {
    const isFirst = !this.model.status;
    this.model.accept(status);
    this.isAway = false;
    byId('away').hidden = true;
    if (isFirst) this.route();
    this.redraw();
  }

  event(event) {
    const kernel = this.model.take(event);
    if (kernel) this.changed.add(kernel);
    if (/^(config\.|daemon\.started|kernel\.removed|stream\.gap)/.test(event.event) && !this.model.isPast(event)) this.refresh();
    if (!kernel || this.shown.sees?.(kernel)) this.due ??= setTimeout(() => this.beat(), BEAT); // what is out of view waits for the clock
  }

  /** All that has come is read. Once that is the past, for the first time or again, all is judged and put in order. */
  caughtUp() {
    if (this.isCurrent || this.source.sequence < this.model.status.seq) return;
    this.isCurrent = true;
    for (const kernel of this.model.kernels.values()) this.changed.add(kernel);
    Object.assign(this.list, { judged: 0, arranged: 0 });
    this.redraw();
  }

  /** Asks for the status anew, once for a burst of events: the file, and which kernels there are. */
  refresh() {
    this.refreshing ??= setTimeout(async () => {
      this.refreshing = null;
      await this.source.ask('status').then((status) => this.status(status), () => {});
    }, BEAT);
  }

  measureSoon() { this.measuring ??= setTimeout(() => this.measure(), BEAT); }

  async measure() {
    this.measuring = null;
    const kernels = document.hidden || this.isAway ? [] : this.shown.seen?.() ?? [];
    if (!kernels.length) return;
    const asked = kernels.map(({ name }) => `kernel=${encodeURIComponent(name)}`).join('&'), at = this.now() - OVERLAP;
    const since = Math.min(at, ...kernels.map(({ heard }) => heard)) / 1000;
    const [{ usage }, { busy }] = await Promise.all([`usage?${asked}`, `../busy?${asked}&since=${since}`].map((path) => this.source.ask(path).catch((error) => this.source.doubt(error))));
    for (const kernel of kernels) {
      if (usage?.[kernel.name]) kernel.sample({ ...usage[kernel.name], at: this.now() });
      if (busy?.[kernel.name]) kernel.hear(busy[kernel.name].map(([from, to]) => ({ at: from * 1000, to: to * 1000 })), at);
      this.changed.add(kernel);
    }
    this.due ??= setTimeout(() => this.beat(), BEAT);
  }

  /** The one place that draws. Nothing while the page is hidden; then all at once. */
  beat() {
    clearTimeout(this.due);
    this.due = null;
    if (document.hidden || !this.model.status) return;
    const now = this.now(), pixel = this.span / Math.max(this.list.width, 300), { changed } = this;
    this.changed = new Set();
    this.isMoved = this.isStale || (this.end == null && Math.abs(now - (this.drawn ?? 0)) > Math.max(1000, pixel)); // either way: clocks are set
    if (this.isMoved) this.drawn = now;
    this.isStale = false;
    this.shown.update(now, changed);
    this.frame(now);
  }

  redraw() { this.isStale = true; this.beat(); }

  /** Shows so many milliseconds that end there; null: now. */
  zoomTo(span, end = null) {
    Object.assign(this, { span, end });
    const [live, spans] = this.zoom.children;
    for (const button of spans.children) button.ariaPressed = String(end == null && button.dataset.span * 1000 === span);
    live.hidden = end == null;
    this.redraw();
  }

  recolour() {
    readInk();
    for (const row of this.list.rows.values()) row.isStale = true;
    this.redraw();
  }

  /** The kernel that the address names. */
  asked() { return [...this.model.kernels.values()].find(({ name }) => kernelHash(name) === location.hash); }

  route() {
    const kind = location.hash.match(/^#\/(kernel|file)\b/)?.[1];
    const isFirst = !byId('main').firstElementChild;
    byId('tip').hidden = true;
    this.shown.close?.();
    this.shown = kind === 'kernel' ? new KernelView(this, this.asked()) : kind === 'file' ? new FileView(this) : this.list;
    byId('main').replaceChildren(this.shown.element);
    this.shown.element.querySelector('.zoom-place')?.replaceChildren(this.zoom);
    this.shown.element.querySelector('.legend-place')?.replaceChildren(this.legend);
    for (const [id, isCurrent] of [['to-kernels', kind !== 'file'], ['to-file', kind === 'file']]) byId(id).setAttribute('aria-current', isCurrent ? 'page' : 'false');
    if (!isFirst) { scrollTo(0, 0); byId('main').focus(); }
    this.recolour();
    this.measure();
  }

  frame(now) {
    const { status } = this.model, mistakes = status.config.mistakes?.length ?? 0, up = short((now - Date.parse(status.started_at)) / 1000);
    const ill = this.model.all(now).filter(({ group }) => group === 'ill').length;
    document.title = `${ill ? `(${ill} ill) ` : ''}${this.shown.name ? `${plain(this.shown.name)} · ` : ''}Kernel Supervisor`;
    byId('daemon').textContent = this.isAway ? 'not live' : `live · version ${status.version} · up ${up}`;
    byId('file-note').textContent = mistakes ? `⚠ ${count(mistakes, 'mistake')}` : '';
    byId('degraded').textContent = (status.degraded ?? []).map(plain).join(' · ');
    byId('away-for').textContent = `${short((now - this.awaySince) / 1000)}.`;
  }

  /** The daemon answers no more: what is shown is marked as old, orders are closed; it is asked again by itself. */
  lost(why) {
    byId('away').dataset.why = why;
    if (!byId('away').hidden) return;
    if (!this.isAway) this.awaySince = this.now();
    this.isAway = true;
    this.isCurrent = false;
    if (this.model.status) byId('away-then').textContent = `You see how it was at ${time(this.awaySince)}.`;
    byId('away').hidden = false;
    this.changed = new Set(this.model.kernels.values());
    this.redraw();
  }

  async order(name, verb, generation) {
    const body = { wait: false, ...(generation ? { if_generation: generation } : {}) };
    const answer = await this.source.ask(`kernels/${encodeURIComponent(name)}/${verb}`, body).catch((error) => ({ message: error.message }));
    announce(plain(answer.message));
    if (answer.ok) return;
    const box = byId('ask');
    box.replaceChildren(make('h2', { id: 'ask-title' }, plain(answer.error ?? answer.message)), make('form', { method: 'dialog' }, make('button', { class: 'order' }, 'Close')));
    box.onclose = null;
    box.showModal();
  }

  /** Opens a notebook on the kernel; the tab first, while the click that asks for it still counts. */
  async openNotebook(id) {
    const tab = open('about:blank');
    const { url, message } = await this.source.ask('../notebook', { id }).catch((error) => ({ message: error.message }));
    if (url) tab.location = url; else { tab.close(); announce(plain(message)); }
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || byId('ask').open || event.target.matches('input, select')) return;
    const spans = [...this.zoom.lastElementChild.children].map(({ dataset }) => dataset.span * 1000), at = spans.findIndex((span) => span >= this.span);
    const keys = {
      '/': () => { if (this.shown === this.list) { event.preventDefault(); this.list.filter.focus(); } },
      '+': () => this.zoomTo(spans[Math.max(0, at - 1)], this.end),
      '-': () => this.zoomTo(spans[Math.min(spans.length - 1, at + 1)], this.end),
      0: () => this.zoomTo(this.span),
      Escape: () => { if (this.shown !== this.list) location.hash = '#/'; },
    };
    keys[event.key === '=' ? '+' : event.key]?.();
  }
}

globalThis.page = new App();
