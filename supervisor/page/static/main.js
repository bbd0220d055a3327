// The page: which view is shown, the clock, and one beat for all that changes.
import { announce, byId, make } from './dom.js';
import { FileView } from './file.js';
import { KernelView } from './kernel.js';
import { mark, prepare, readInk, SPANS } from './lane.js';
import { List } from './list.js';
import { Model } from './model.js';
import { Source } from './source.js';
import { count, plain, short, time } from './words.js';

const BEAT = 200; // milliseconds: a change is seen within this, and twenty of them cost one drawing
const MEASURING = 5000; // usage is asked for this often, of the kernels in view only

class App {
  constructor() {
    this.model = new Model();
    this.source = new Source({ status: (status) => this.status(status), event: (event) => this.event(event), caughtUp: () => this.caughtUp(), lost: (reason) => this.lost(reason) });
    this.span = SPANS[1][1];
    this.end = null; // null: the right edge is now
    this.changed = new Set();
    this.isAway = true;
    this.awaySince = Date.now();
    this.zoomed = [];
    this.hasLab = 'lab' in document.documentElement.dataset;
    readInk();
    this.list = new List(this);
    this.shown = this.list;
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
  onZoom(tell) { this.zoomed.push(tell); tell(); }

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
    this.measure();
  }

  event(event) {
    const kernel = this.model.take(event);
    if (kernel) this.changed.add(kernel);
    if (/^(config\.|daemon\.started|kernel\.removed)/.test(event.event)) this.refresh();
    if (!kernel || this.shown.sees?.(kernel)) this.due ??= setTimeout(() => this.beat(), BEAT); // what is out of view waits for the clock
  }

  /** The past is known, for the first time or again: all is judged and put in order at once. */
  caughtUp() {
    if (this.isCurrent) return;
    this.isCurrent = true;
    for (const kernel of this.model.kernels.values()) this.changed.add(kernel);
    Object.assign(this.list, { judged: 0, arranged: 0 });
    this.refresh();
    this.redraw();
  }

  /** Asks for the status anew, once for a burst of events: the file, and which kernels there are. */
  refresh() {
    this.refreshing ??= setTimeout(async () => {
      this.refreshing = null;
      await this.source.ask('status').then((status) => this.status(status), () => {});
    }, BEAT);
  }

  async measure() {
    const names = document.hidden || this.isAway ? [] : this.shown.seen?.() ?? [];
    if (!names.length) return;
    const { usage } = await this.source.ask(`usage?${names.map((name) => `kernel=${encodeURIComponent(name)}`).join('&')}`).catch(() => ({ usage: {} }));
    for (const [name, sample] of Object.entries(usage)) {
      const kernel = this.model.kernels.get(name);
      kernel?.sample({ ...sample, at: this.now() });
      if (kernel) this.changed.add(kernel);
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
    this.isMoved = this.isStale || (this.end == null && now - (this.drawn ?? 0) > Math.max(1000, pixel));
    if (this.isMoved) this.drawn = now;
    this.isStale = false;
    this.shown.update(now, changed);
    this.frame(now);
  }

  redraw() { this.isStale = true; this.beat(); }
  zoomTo(span, end = null) {
    Object.assign(this, { span, end });
    for (const tell of this.zoomed) tell();
    this.redraw();
  }

  recolour() {
    readInk();
    for (const canvas of document.querySelectorAll('canvas.key')) mark(prepare(canvas, 14, 14), canvas.dataset.mark, 7, 7);
    for (const row of this.list.rows.values()) row.isStale = true;
    this.redraw();
  }

  route() {
    const [, kind, name] = location.hash.match(/^#\/(kernel|file)\/?(.*)$/) ?? [];
    const isFirst = !byId('main').firstElementChild;
    byId('tip').hidden = true;
    this.shown.close?.();
    this.zoomed.length = 1; // the list's own
    this.shown = kind === 'kernel' ? new KernelView(this, decodeURIComponent(name)) : kind === 'file' ? new FileView(this) : this.list;
    byId('main').replaceChildren(this.shown.element);
    for (const [id, isCurrent] of [['to-kernels', kind !== 'file'], ['to-file', kind === 'file']]) byId(id).setAttribute('aria-current', isCurrent ? 'page' : 'false');
    if (!isFirst) { scrollTo(0, 0); byId('main').focus(); }
    this.recolour();
    this.measure();
  }

  frame(now) {
    const { status } = this.model, mistakes = status.config.mistakes?.length ?? 0, up = short((now - Date.parse(status.started_at)) / 1000);
    byId('daemon').textContent = this.isAway ? 'no daemon' : `live · version ${status.version} · up ${up}`;
    byId('file-note').textContent = mistakes ? `⚠ ${count(mistakes, 'mistake')}` : '';
    byId('degraded').textContent = (status.degraded ?? []).map(plain).join(' · ');
    byId('away-for').textContent = `${short((now - this.awaySince) / 1000)}.`;
  }

  /** The daemon answers no more: what is shown is marked as old, orders are closed; it is asked again by itself. */
  lost(reason) {
    if (!byId('away').hidden) return;
    if (!this.isAway) this.awaySince = this.now();
    this.isAway = true;
    this.isCurrent = false;
    byId('away-why').textContent = this.model.status
      ? `You see how it was at ${time(this.awaySince)}. Kernels that ran go on without it; nobody restarts one that dies.` : `${plain(reason)}.`;
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
    const at = SPANS.findIndex(([, span]) => span >= this.span);
    const keys = {
      '/': () => { if (this.shown === this.list) { event.preventDefault(); this.list.filter.focus(); } },
      '+': () => this.zoomTo(SPANS[Math.max(0, at - 1)][1], this.end),
      '-': () => this.zoomTo(SPANS[Math.min(SPANS.length - 1, at + 1)][1], this.end),
      0: () => this.zoomTo(this.span),
      Escape: () => { if (this.shown !== this.list) location.hash = '#/'; },
    };
    keys[event.key === '=' ? '+' : event.key]?.();
  }
}

globalThis.page = new App();
