// The daemon, by way of the server that serves this page: its status, its events, orders.
// One connection follows the events; after a pause it goes on at the last number, without a gap.

const MONTH = 30 * 86400e3;
const SILENCE = 30e3; // the server sends something every ten seconds
const RETRY = 1000;
// A browser has six connections to a server, for all of its tabs: one that is hidden has none.
const shown = async () => { while (document.hidden) await new Promise((resolve) => { document.addEventListener('visibilitychange', resolve, { once: true }); }); };
const cookie = (name) => document.cookie.split('; ').find((part) => part.startsWith(`${name}=`))?.slice(name.length + 1);

export class Source {
  /** `tell` has status(status), event(event), caughtUp(), lost(why), a status of HTTP or 0: what becomes known. */
  constructor(tell) {
    this.tell = tell;
    this.sequence = null;
    this.skew = 0; // the daemon's clock less ours
    this.base = new URL('v1/', document.baseURI);
  }

  now() { return Date.now() + this.skew; }

  async fetch(path, options = {}) {
    const answer = await fetch(new URL(path, this.base), { cache: 'no-store', credentials: 'same-origin', ...options });
    const ahead = Date.parse(answer.headers.get('date')) - Date.now(); // which tells whole seconds
    if (ahead) this.skew = Math.abs(ahead) > 2000 ? ahead : 0;
    return answer;
  }

  /** The JSON that a path answers with; throws where the daemon refuses or is not there. */
  async ask(path, body) {
    const headers = { 'Content-Type': 'application/json', 'X-XSRFToken': cookie('_xsrf') ?? '' };
    const answer = await this.fetch(path, body ? { method: 'POST', headers, body: JSON.stringify(body) } : {});
    const found = await answer.json().catch(() => ({}));
    if (!answer.ok && !body) throw Object.assign(new Error(found.error ?? found.message ?? answer.statusText), { status: answer.status });
    return { ...found, ok: answer.ok };
  }

  /** Follows for ever; each failure is told, and tried again. */
  async follow() {
    for (;;) {
      await shown();
      let why = 503; // the daemon ended it
      this.following = new AbortController();
      try {
        this.tell.status(await this.ask('status'));
        await this.stream();
      } catch (error) { why = (this.following.signal.reason ?? error).status ?? 0; } // not all browsers throw the reason
      if (!document.hidden) this.tell.lost(why);
      await new Promise((resolve) => { setTimeout(resolve, why === 403 ? SILENCE : RETRY); });
    }
  }

  /** What was asked beside the stream has failed: if nobody answers there, the stream says nothing either. */
  doubt(error) {
    if ([403, 503].includes(error.status)) this.following.abort(error);
    return {};
  }

  async stream() {
    const place = this.sequence == null ? `since=${new Date(this.now() - MONTH).toISOString()}` : `after=${this.sequence}`;
    await this.lines(`events?follow=1&brief=1&${place}`, (event) => {
      if (event.seq != null) this.sequence = event.seq;
      this.tell.event(event);
    }, () => this.tell.caughtUp(), this.following);
  }

  /** Reads lines of JSON as they come; `quiet` is called whenever all that has come so far is read. */
  async lines(path, take, quiet = () => {}, stop = new AbortController()) {
    const silence = new AbortController(); // ends this answer, and not what the caller does next
    let alarm;
    await shown();
    document.addEventListener('visibilitychange', () => silence.abort(), { signal: silence.signal });
    const wait = () => { clearTimeout(alarm); alarm = setTimeout(() => silence.abort(), SILENCE); };
    wait();
    try {
      const answer = await this.fetch(path, { signal: AbortSignal.any([stop.signal, silence.signal]) });
      if (!answer.ok) throw Object.assign(new Error((await answer.json()).error), { status: answer.status });
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = '';
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        wait();
        const lines = (rest + value).split('\n');
        rest = lines.pop();
        for (const line of lines) if (line) take(JSON.parse(line));
        if (!rest) quiet();
      }
    } finally {
      clearTimeout(alarm);
      silence.abort();
    }
  }
}
