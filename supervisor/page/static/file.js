// The file: the mistakes of an edit that was rejected, what is in force, and what a reload would do.
import { copyable, kernelLink, make, pane, whenChanged } from './dom.js';
import { count, moment, plain } from './words.js';

const DOES = {
  restart: 'is restarted: its memory is lost', start: 'is started', stop: 'is stopped: its memory is lost',
  remove: 'is stopped and forgotten', apply: 'goes on; the change applies at once',
  pending: 'goes on; the change waits for its next start', none: 'is not touched',
};

export class FileView {
  constructor(app) {
    this.app = app;
    this.element = make('section', { class: 'file' });
    this.write = whenChanged((now) => this.load(now));
  }

  update(now) { this.write([this.app.model.status?.config, this.app.isAway], now); }

  async load(now) {
    const { config } = this.app.model.status, plan = await this.app.source.ask('plan', {}).catch(() => ({ kernels: [] }));
    const mistakes = config.mistakes_at ?? [], all = this.app.model.kernels.size;
    const touched = mistakes.length ? [] : (plan.kernels ?? []).filter(({ action }) => action !== 'none');
    const calm = all - touched.filter(({ action }) => action !== 'start').length;
    const title = mistakes.length ? `${count(mistakes.length, 'mistake')} in the file` : touched.length ? 'An edit waits' : 'The file is in force';
    const note = mistakes.length ? 'Nothing was touched: what was in force still is.' : `${count(calm, 'kernel')} not touched.`;
    const facts = [['File', plain(config.path)], ['Loaded', moment(Date.parse(config.loaded_at), now)]];
    const prompt = { 'All mistakes and warnings': 'kernel-supervisor check', 'What a reload would do': 'kernel-supervisor plan' };
    const since = config.ahead_since && `since ${moment(Date.parse(config.ahead_since), now)}`;
    this.element.replaceChildren(make('div', { class: 'verdict' }, make('h1', {}, title, make('span', {}, note))), make('div', { class: 'panes' },
      make('div', {}, mistakes.length ? pane('Mistakes', since, ...mistakes.map((one) => mistake(one, config.path))) : null, pane('What a reload would do', 'nothing was done yet', this.plan(touched, calm, mistakes.length))),
      make('div', {}, pane('In force', '', make('dl', { class: 'facts' }, facts.flatMap(([key, text]) => [make('dt', {}, key), make('dd', {}, text)]))),
        pane('At the prompt', '', ...Object.entries(prompt).flatMap(([label, text]) => [make('p', { class: 'how' }, label), copyable(text, label)])))));
  }

  plan(touched, calm, mistakes) {
    const head = touched.length ? make('tr', {}, ['Kernel', 'What becomes of it', 'Because of'].map((text) => make('th', { scope: 'col' }, text))) : null;
    const rows = touched.map(({ kernel, action, note, keys }) => make('tr', {}, make('td', {}, kernelLink(kernel)),
      make('td', {}, DOES[action] ?? plain(action), note ? make('small', {}, plain(note)) : null), make('td', {}, make('code', {}, keys.map(plain).join(', ')))));
    const rest = mistakes ? 'Nothing: a file with mistakes is never applied, not even in part.' : `${count(calm, touched.length ? 'other kernel' : 'kernel')}: not touched`;
    return make('table', { class: 'plan' }, make('tbody', {}, head, rows, make('tr', { class: 'none' }, make('td', { colspan: 3 }, rest))));
  }
}

function mistake({ file, line, key, text }, path) {
  const where = [file !== path && plain(file), line && `line ${line}`].filter(Boolean).join(', ');
  return make('div', { class: 'mistake' }, make('p', {}, key ? [make('code', {}, plain(key)), ' '] : null, plain(text)), where ? make('small', {}, where) : null);
}
