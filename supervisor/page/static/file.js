// The file: the mistakes of an edit that was rejected, what is in force, and what a reload would do.
import { instance, kernelLink, make, whenChanged } from './dom.js';
import { count, moment, plain } from './words.js';

const DOES = {
  restart: 'is restarted: its memory is lost', start: 'is started', stop: 'is stopped: its memory is lost',
  remove: 'is stopped and forgotten', apply: 'goes on; the change applies at once',
  pending: 'goes on; the change waits for its next start', none: 'is not touched',
};

export class FileView {
  constructor(app) {
    Object.assign(this, { app }, instance('file-view'));
    this.write = whenChanged((now) => this.load(now));
  }

  update(now) { this.write([this.app.model.status?.config, this.app.isAway], now); }

  async load(now) {
    const { config } = this.app.model.status, found = await this.app.source.ask('plan', {}).catch(() => ({}));
    const mistakes = config.mistakes_at ?? [], touched = mistakes.length ? [] : (found.kernels ?? []).filter(({ action }) => action !== 'none');
    const calm = this.app.model.kernels.size - touched.filter(({ action }) => action !== 'start').length;
    this.title.textContent = mistakes.length ? `${count(mistakes.length, 'mistake')} in the file` : touched.length ? 'An edit waits' : 'The file is in force';
    this.note.textContent = mistakes.length ? 'Nothing was touched: what was in force still is.' : `${count(calm, 'kernel')} not touched.`;
    this.since.textContent = config.ahead_since ? `since ${moment(Date.parse(config.ahead_since), now)}` : '';
    this.rejected.hidden = !mistakes.length;
    this.mistakes.replaceChildren(...mistakes.map((one) => mistake(one, config.path)));
    this.path.textContent = plain(config.path);
    this.loaded.textContent = moment(Date.parse(config.loaded_at), now);
    const rest = mistakes.length ? 'Nothing: a file with mistakes is never applied, not even in part.' : `${count(calm, touched.length ? 'other kernel' : 'kernel')}: not touched`;
    this.plan.replaceChildren(...touched.map(touch), make('tr', { class: 'none' }, make('td', { colspan: 3 }, rest)));
  }
}

const touch = ({ kernel, action, note, keys }) => make('tr', {}, make('th', { scope: 'row' }, kernelLink(kernel)),
  make('td', {}, DOES[action] ?? plain(action), note ? make('small', {}, plain(note)) : null),
  make('td', {}, keys.length ? ['because of ', make('code', {}, keys.map(plain).join(', '))] : ''));

function mistake({ file, line, key, text }, path) {
  const where = [file !== path && plain(file), line && `line ${line}`].filter(Boolean).join(', ');
  return make('div', { class: 'mistake' }, make('p', {}, key ? [make('code', {}, plain(key)), ' '] : null, plain(text)), where ? make('small', {}, where) : null);
}
