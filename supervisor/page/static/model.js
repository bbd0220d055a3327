// The state of the page: what the status told, and what each event since then changed. No elements.

const MONTH = 30 * 86400e3;
const NEXT = {
  'kernel.starting': 'starting', 'kernel.ready': 'running', 'kernel.responsive': 'running', 'kernel.adopted': 'running',
  'kernel.unresponsive': 'unresponsive', 'kernel.died': 'backoff', 'kernel.waiting': 'waiting', 'kernel.stopping': 'stopping',
  'kernel.stopped': 'stopped', 'kernel.failed': 'failed', 'kernel.removed': 'gone',
};
const GROUPS = { // from the worst to the best: the order of "worst first"
  failed: 'ill', unresponsive: 'ill', waiting: 'ill', backoff: 'shaky', shaky: 'shaky', starting: 'well', stopping: 'well', running: 'well',
  stopped: 'stopped', gone: 'stopped',
};
const RANKS = Object.keys(GROUPS);
const SAMPLES = 120, EXECUTIONS = 5000; // the most that are kept

export class Kernel {
  constructor(name) {
    this.name = name;
    this.view = { name, phase: 'stopped', restarts: 0, pending: [] };
    this.bands = []; // { at, state, event }: from `at` on it is in this state
    this.deaths = []; // { at, event }
    this.busy = []; // { at, to }: it executed then, as far as is known
    this.heard = 0; // until when that was asked
    this.usage = []; // samples: { at, memory, core, threads, descriptors, children }
    this.deaf = new Set(); // the checks that it does not answer
    this.judge(0);
  }

  get state() { return this.view.phase === 'running' && this.view.health === 'unresponsive' ? 'unresponsive' : this.view.phase; }
  get since() { return this.bands.at(-1)?.at ?? (Date.parse(this.view.since) || 0); }
  get born() { return Date.parse(this.view.since) || this.since; }

  /** How many deaths within the last `span` milliseconds. */
  recent(now, span) { return this.deaths.length - 1 - this.deaths.findLastIndex(({ at }) => at <= now - span); }

  /** For how many milliseconds of a part of time it executed. */
  busyIn(start, end) { return this.busy.reduce((sum, { at, to }) => sum + Math.max(0, Math.min(to, end) - Math.max(at, start)), 0); }

  /** Takes the spans in which it executed, up to `heard`; those that touch become one. */
  hear(spans, heard) {
    this.heard = heard;
    if (!spans.length) return;
    const all = [...this.busy, ...spans].sort((one, other) => one.at - other.at);
    this.busy = [];
    for (const { at, to } of all) {
      const last = this.busy.at(-1);
      if (last?.to >= at) last.to = Math.max(last.to, to); else this.busy.push({ at, to });
    }
    this.busy.splice(0, this.busy.length - EXECUTIONS);
  }

  /** Finds the group that it belongs to; "shaky" is one that dies and comes back. */
  judge(now) {
    const { state } = this;
    const shaky = (state === 'running' && this.recent(now, 3600e3) > 1) || (state === 'starting' && this.recent(now, 600e3) > 0);
    this.icon = shaky && state === 'running' ? 'shaky' : state === 'waiting' ? 'backoff' : state;
    this.rank = RANKS.indexOf(shaky ? 'shaky' : state);
    this.group = GROUPS[RANKS[this.rank]];
  }

  /** Takes an event; a past one changes the view no more. */
  take(event, at, isPast) {
    let state = NEXT[event.event];
    if (event.event === 'kernel.restarting') state = event.delay > 0 ? 'backoff' : 'starting';
    if (event.event === 'kernel.died') {
      this.deaths.push({ at, event });
      if (event.executing) this.busy.push({ at: Date.parse(event.executing.since), to: at });
      if (this.deaths[0].at < at - MONTH) this.deaths.shift();
    }
    if (!state) return;
    this.listen(event);
    if (event.event === 'kernel.responsive' && this.deaf.size) return; // one check is answered, the other not yet
    this.enter(state, at, event);
    if (!isPast) this.follow(event, at, state);
  }

  listen(event) {
    if (event.event === 'kernel.unresponsive') this.deaf.add(event.check);
    else if (event.event === 'kernel.responsive') this.deaf.delete(event.check);
    else this.deaf.clear();
  }

  enter(state, at, event) {
    const last = this.bands.at(-1);
    if (last?.at === at) Object.assign(last, { state, event });
    else if (!last || last.state !== state || state === 'starting') this.bands.push({ at, state, event });
    if (this.bands.length > 1 && this.bands[1].at < at - MONTH) this.bands.shift();
  }

  /** Changes the view as the daemon's own would have changed. */
  follow(event, at, state) {
    const { view } = this;
    view.phase = state === 'unresponsive' ? 'running' : state;
    view.health = { unresponsive: 'unresponsive', running: 'ok' }[state] ?? null;
    view.generation = event.generation ?? view.generation;
    if (event.event === 'kernel.died') view.last_death = { ...event, at: event.timestamp };
    if (event.event === 'kernel.starting') Object.assign(view, { since: event.timestamp, pid: event.pid });
    if (['stopped', 'failed', 'backoff', 'waiting'].includes(state)) view.pid = null;
    if (event.event === 'kernel.restarting') Object.assign(view, { restarts: view.restarts + 1, next_start_at: at + event.delay * 1000 });
    if (['failed', 'waiting'].includes(state)) view.reason = event.reason;
  }

  sample(usage) { this.usage = [...this.usage, usage].slice(-SAMPLES); }
}

export class Model {
  constructor() {
    this.status = null;
    this.kernels = new Map();
    this.edits = []; // { at, event }: the file was loaded or rejected, the daemon came or went
  }

  /** What the daemon tells of the present is the truth; what it does not know any more is gone. */
  accept(status) {
    this.status = status;
    for (const view of status.kernels) Object.assign(this.kernel(view.name), { view, deaf: new Set(view.unanswered) });
    this.kernels = new Map(status.kernels.map((view) => [view.name, this.kernel(view.name)])); // in its order
  }

  kernel(name) {
    if (!this.kernels.has(name)) this.kernels.set(name, new Kernel(name));
    return this.kernels.get(name);
  }

  /** Whether the status has it in it already. */
  isPast({ seq }) { return seq <= this.status.seq; }

  /** Takes an event; returns the kernel that it is about. */
  take(event) {
    const at = Date.parse(event.timestamp), isPast = this.isPast(event);
    if (/^(config|daemon)\./.test(event.event)) this.edits.push({ at, event });
    if (!event.kernel || (isPast && !this.kernels.has(event.kernel))) return null; // it has left the file
    const kernel = this.kernel(event.kernel);
    kernel.take(event, at, isPast);
    return kernel;
  }

  /** All kernels, judged as of now. */
  all(now) {
    const all = [...this.kernels.values()];
    for (const kernel of all) kernel.judge(now);
    return all;
  }
}
