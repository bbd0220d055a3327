// The state of the page: what the status told, and what each event since then changed. No elements.

const MONTH = 30 * 86400e3;
const NEXT = {
  'kernel.starting': 'starting', 'kernel.ready': 'running', 'kernel.responsive': 'running', 'kernel.adopted': 'running',
  'kernel.unresponsive': 'unresponsive', 'kernel.died': 'backoff', 'kernel.stopping': 'stopping',
  'kernel.stopped': 'stopped', 'kernel.failed': 'failed', 'kernel.removed': 'gone',
};
// From the worst to the best: the order of "worst first".
const RANKS = ['failed', 'unresponsive', 'backoff', 'shaky', 'starting', 'stopping', 'running', 'stopped', 'gone'];
const SAMPLES = 120;

export class Kernel {
  constructor(name) {
    this.name = name;
    this.view = { name, phase: 'stopped', restarts: 0, pending: [] };
    this.bands = []; // { at, state, event }: from `at` on it is in this state
    this.deaths = []; // { at, event }
    this.usage = []; // samples: { at, memory, core, threads, descriptors, children }
    this.deaf = new Set(); // the checks that it does not answer
    this.judge(0);
  }

  get state() { return this.view.phase === 'running' && this.view.health === 'unresponsive' ? 'unresponsive' : this.view.phase; }
  get since() { return this.bands.at(-1)?.at ?? (Date.parse(this.view.since) || 0); }
  get born() { return Date.parse(this.view.since) || this.since; }

  /** How many deaths within the last `span` milliseconds. */
  recent(now, span) {
    let found = 0;
    for (let i = this.deaths.length - 1; i >= 0 && this.deaths[i].at > now - span; i--) found++;
    return found;
  }

  /** Finds the group that it belongs to; "shaky" is one that dies and comes back. */
  judge(now) {
    const { state } = this;
    const shaky = (state === 'running' && this.recent(now, 3600e3) > 1) || (state === 'starting' && this.recent(now, 600e3) > 0);
    this.icon = shaky && state === 'running' ? 'shaky' : state;
    this.rank = RANKS.indexOf(shaky ? 'shaky' : state);
    if (['failed', 'unresponsive'].includes(state)) this.group = 'ill';
    else if (shaky || state === 'backoff') this.group = 'shaky';
    else this.group = ['stopped', 'gone'].includes(state) ? 'stopped' : 'well';
  }

  take(event, at) {
    let state = NEXT[event.event];
    if (event.event === 'kernel.restarting') state = event.delay > 0 ? 'backoff' : 'starting';
    if (event.event === 'kernel.died') {
      this.deaths.push({ at, event });
      if (this.deaths[0].at < at - MONTH) this.deaths.shift();
    }
    if (!state) return;
    this.listen(event);
    if (event.event === 'kernel.responsive' && this.deaf.size) return; // one check is answered, the other not yet
    this.enter(state, at, event);
    this.follow(event, at, state);
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
    if (['stopped', 'failed', 'backoff'].includes(state)) view.pid = null;
    if (event.event === 'kernel.restarting') Object.assign(view, { restarts: view.restarts + 1, next_start_at: at + event.delay * 1000 });
    if (event.event === 'kernel.failed') view.reason = event.reason;
  }

  sample(usage) {
    this.usage.push(usage);
    if (this.usage.length > SAMPLES) this.usage.shift();
  }
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
    const names = new Set(status.kernels.map((view) => view.name));
    for (const name of this.kernels.keys()) if (!names.has(name)) this.kernels.delete(name);
    for (const view of status.kernels) Object.assign(this.kernel(view.name), { view, deaf: new Set(view.unanswered) });
    this.kernels = new Map(status.kernels.map((view) => [view.name, this.kernel(view.name)])); // in its order
  }

  kernel(name) {
    if (!this.kernels.has(name)) this.kernels.set(name, new Kernel(name));
    return this.kernels.get(name);
  }

  /** Takes an event; returns the kernel that it is about. */
  take(event) {
    const at = Date.parse(event.timestamp);
    if (event.kernel) {
      const kernel = this.kernel(event.kernel);
      kernel.take(event, at);
      return kernel;
    }
    if (/^(config|daemon)\./.test(event.event)) this.edits.push({ at, event });
    return null;
  }

  /** All kernels, judged as of now. */
  all(now) {
    const all = [...this.kernels.values()];
    for (const kernel of all) kernel.judge(now);
    return all;
  }
}
