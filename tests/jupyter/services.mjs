// What VS Code does with an existing Jupyter server. node services.mjs URL TOKEN KERNEL FILE
import { createRequire } from "module";
import { execSync } from "child_process";
import { existsSync, unlinkSync } from "fs";

const require = createRequire(process.env.NODE_MODULES + "/");
const { ServerConnection, KernelManager, KernelSpecManager, SessionManager } = require("@jupyterlab/services");
const [url, token, name, file] = process.argv.slice(2);
const WebSocket = require("ws");
const settings = { baseUrl: url, wsUrl: url.replace("http", "ws"), token, appendToken: true, WebSocket, fetch, Request, Headers };
const serverSettings = ServerConnection.makeSettings(settings);
const kernelManager = new KernelManager({ serverSettings, standby: "never" });
const specs = new KernelSpecManager({ serverSettings });
const sessions = new SessionManager({ kernelManager, serverSettings, standby: "never" });
await Promise.all([kernelManager.ready, specs.ready, sessions.ready]);
const told = { specs: Object.keys(specs.specs.kernelspecs), sessions: [...sessions.running()].map(s => s.kernel?.name) };

const session = await sessions.startNew({ path: "vs.ipynb", name: "vs", type: "notebook", kernel: { name } });
const kernel = session.kernel;
const statuses = [];
kernel.statusChanged.connect((_, status) => statuses.push(status));
const sleep = ms => new Promise(done => setTimeout(done, ms));
const execute = async (code, input) => {
  let text = "";
  const future = kernel.requestExecute({ code, allow_stdin: Boolean(input) });
  future.onIOPub = m => { text += m.content.ename ?? m.content.text ?? ""; };
  future.onStdin = m => { text += m.content.prompt; kernel.sendInputReply({ value: input, status: "ok" }, m.header); };
  const reply = await Promise.race([future.done, sleep(20000)]);
  return `${text.trim()} ${reply?.content.status ?? "no answer"}`.trim();
};
const inside = async () => { while (!existsSync(file)) await sleep(20); unlinkSync(file); };
const SLEEP = `import pathlib, time\npathlib.Path(${JSON.stringify(file)}).touch()\ntime.sleep(60)`;

told.execute = await execute("import os; print(os.getpid())");
let cell = execute(SLEEP);
await inside();
let since = Date.now();
await kernel.interrupt();
told.interrupted = await cell;
told.interrupt_ms = Date.now() - since;
told.stdin = (await execute("print('hello', input('name? '))", "Ada")).replace(/ ok$/, "");

const bytes = new Promise(done => kernel.registerCommTarget("binary", (comm, open) => done([...new Uint8Array(open.buffers[0].buffer ?? open.buffers[0])])));
await execute("from comm import create_comm\ncreate_comm(target_name='binary', buffers=[bytes([0, 255, 128])])");
told.buffer = await Promise.race([bytes, sleep(5000)]);

const pid = (await execute("import os; print(os.getpid())")).split(" ")[0];
cell = execute(SLEEP);
await inside();
since = Date.now();
process.kill(Number(pid), "SIGKILL");
told.killed = await cell;
told.killed_ms = Date.now() - since;
while (!statuses.includes("autorestarting") || kernel.status !== "idle" || kernel.connectionStatus !== "connected") await sleep(50);
told.goes_on = await execute("q = 1; print('alive')");
await kernel.restart();
told.restarted = await execute("print('q' in globals())");
await session.shutdown();
console.log(JSON.stringify(told));
process.exit(0);
