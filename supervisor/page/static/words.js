// Words for people: spans, causes, sentences; those of the command line and the log (a test compares them).
// Pure: no elements, no clock.

const UNITS = [['d', 86400, 'h', 3600], ['h', 3600, 'min', 60], ['min', 60, 's', 1]];
// The cause of a death: in a column or at a mark, and as the end of a sentence about the kernel.
export const CAUSES = {
  oom: ['out of memory', 'ran out of memory'],
  'start-timeout': ['not ready in time', 'was not ready in time'],
  unresponsive: ['did not answer', 'did not answer and was killed'],
  'port-taken': ['a port was taken', 'found one of its ports taken'],
  'not-found': ['cannot be launched', 'cannot be launched'],
  'time-limit': ['its time was up', 'was ended when its time was up'],
  'node-failed': ['its node failed', 'was lost with its node'],
  preempted: ['its place was given to another job', 'had to make place for another job'],
  cancelled: ['its job was cancelled', 'was ended as its job was cancelled'],
};
export const CHECKS = { heartbeat: 'its heartbeat', probe: 'kernel_info on control' };

export const { format: time } = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' });
export const { format: minute } = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit' });
export const { format: day } = new Intl.DateTimeFormat('en-GB', { weekday: 'short', day: 'numeric', month: 'short' });

/** A moment as people write it: the time, and the day where it is not today. */
export const moment = (at, now) => (day(at) === day(now) ? time(at) : `${day(at)}, ${minute(at)}`);

/** "5 s", "3 min", "2 h", "4 d": one unit, rounded down, as in `status`. */
export function short(seconds) {
  if (seconds == null || Number.isNaN(seconds)) return '–';
  const [unit, length] = UNITS.find(([, length]) => seconds >= 2 * length) ?? ['s', 1];
  return `${Math.max(0, Math.floor(seconds / length))} ${unit}`;
}

/** The two largest units: "0.41 s", "3 min 4 s", "3 h 2 min". */
export function span(seconds) {
  if (seconds < 0.1) return `${Math.max(0, Math.round(seconds * 1000))} ms`;
  if (seconds < 9.95) return `${Number(seconds.toPrecision(2))} s`;
  const whole = Math.round(seconds), [unit, length, smaller, part] = UNITS.find(([, length]) => whole >= length) ?? ['s', 1];
  const rest = Math.floor((whole % length) / part);
  return `${Math.floor(whole / length)} ${unit}${rest ? ` ${rest} ${smaller}` : ''}`;
}

export function bytes(number) {
  if (number == null) return '–';
  return number < 1e9 ? `${Math.round(number / 1e6)} MB` : `${(number / 1e9).toFixed(number < 1e10 ? 1 : 0)} GB`;
}

export const count = (number, one, many = `${one}s`) => `${number} ${number === 1 ? one : many}`;
export const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

/** What a kernel wrote, made harmless: no colours, and what would hide or turn text is spelled out. */
export function plain(text) {
  return String(text ?? '')
    .replace(/\x1b\[[0-9;?]*[A-Za-z]/g, '')
    .replace(/[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g,
      (sign) => (sign === '\r' ? '' : `\\u${sign.charCodeAt(0).toString(16).padStart(4, '0')}`));
}

/** How it ended: in a word or two, and as the end of a sentence whose subject is the kernel. */
function ended(death) {
  if (death.cause in CAUSES) return CAUSES[death.cause];
  if (death.signal) return [plain(death.signal), `${death.cause === 'crashed' ? 'crashed with' : 'was killed by'} ${plain(death.signal)}`];
  return death.exit_code == null ? ['cause unknown', 'ended, and nobody knows how'] : [`exit ${death.exit_code}`, `exited with code ${death.exit_code}`];
}
export const cause = (death) => ended(death)[0];
export const how = (death) => ended(death)[1];

/** What it did as it died. */
export const executed = (at, { count, since }) => `was executing In [${count}] for ${span((at - Date.parse(since)) / 1000)}`;

const SHAPES = { oom: 'full', unresponsive: 'wait', 'start-timeout': 'wait', crashed: 'crash' };
/** Which mark a death has: one shape for each kind of cause. */
export const shape = (death) => SHAPES[death.cause] ?? (death.signal ? 'kill' : 'exit');

const lastLine = (death) => {
  const line = plain(death?.output_tail?.at(-1)).trim();
  return line ? ` Last line: “${line.slice(0, 140)}”` : '';
};

/** Why a kernel is ill or shaky, in one or two sentences, or ''. */
export function why(kernel, now) {
  const { view } = kernel, death = view.last_death ?? kernel.deaths.at(-1)?.event, recent = kernel.recent(now, 3600e3);
  const end = death ? how(death) : 'died', times = recent > 1 ? `, ${recent} times in the last hour` : '';
  if (view.phase === 'failed') return `${capital(plain(view.reason) || end)}.${death?.cause === 'not-found' ? '' : lastLine(death)}`;
  if (view.phase === 'waiting') return `Waits for room: ${plain(view.reason)}.`;
  if (view.health === 'unresponsive') {
    const checks = [...kernel.deaf].map((check) => CHECKS[check] ?? plain(check)).join(' nor ') || 'its checks';
    return `Does not answer ${checks} since ${moment(kernel.since, now)}; the process lives (pid ${view.pid}).`;
  }
  const queue = view.job?.queue;
  const begins = queue?.estimate ? `; to begin ${moment(Date.parse(queue.estimate), now)}` : '';
  if (queue) return `In the queue of the cluster${queue.reason ? `: ${plain(queue.reason)}` : ''}${begins}.`;
  if (view.phase === 'backoff') return `${capital(end)}${times}.${lastLine(death)}`;
  if (view.phase === 'starting' && recent) return `${capital(end)}${times}; starting again.${lastLine(death)}`;
  if (kernel.group !== 'shaky') return '';
  return `Runs again, but died ${recent} times in the last hour. The last time it ${end}.${lastLine(death)}`;
}

const EDITS = {
  'config.loaded': 'the file was edited and loaded',
  'config.rejected': 'an edit of the file was rejected',
  'daemon.started': 'the daemon started',
  'daemon.detached': 'the daemon left, the kernels went on',
  'daemon.stopping': 'the daemon is stopping',
  'daemon.stopped': 'the daemon stopped',
};
export const edited = (event) => EDITS[event.event] ?? plain(event.event);
