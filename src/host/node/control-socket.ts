// The Unix socket through which a running machine is controlled: one JSON request a line, one JSON answer a line, in order. Only the user who
// runs the machine can reach it: the folder has mode 0700, the socket 0600, and there is no network.

import { chmodSync, lstatSync, mkdirSync, readdirSync, unlinkSync } from "node:fs";
import { createConnection, createServer, type Server, type Socket } from "node:net";
import { tmpdir, userInfo } from "node:os";
import { isAbsolute, join, resolve } from "node:path";
import { SkepError, type SkepErrorCode } from "../../errors.ts";

/** Of requests and answers, those of `handleControl` included. Another one is refused: the two sides can be of different releases. */
const PROTOCOL_VERSION = 1;
/** Longest request in bytes: a piece of memory in hexadecimal, and words around it. */
const LINE_MAX = 1 << 20;
const SUFFIX = ".sock";
const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;

interface Envelope {
  readonly version: number;
  readonly body: unknown;
}

type Answer = { readonly result: unknown } | { readonly error: string; readonly code: SkepErrorCode };

export function checkName(name: string): void {
  if (!NAME.test(name))
    throw new SkepError(
      "config",
      `"${name}" cannot be a machine's name: up to 64 letters, digits, dots, dashes and underscores, a letter or digit first`,
    );
}

/** $SKEP_RUN, else skep under $XDG_RUNTIME_DIR, else a folder of the user's own among temporary files. */
export function runDirectory(env: NodeJS.ProcessEnv = process.env): string {
  if (env.SKEP_RUN) return resolve(env.SKEP_RUN);
  const xdg = env.XDG_RUNTIME_DIR;
  if (xdg && isAbsolute(xdg)) return join(xdg, "skep");
  return join(tmpdir(), `skep-${userInfo().uid}`);
}

/** Makes the folder, or checks that it is nobody else's: among temporary files anybody could have made it first. */
function ownDirectory(): string {
  const path = runDirectory();
  try {
    mkdirSync(path, { recursive: true, mode: 0o700 });
    const found = lstatSync(path);
    if (!found.isDirectory() || found.uid !== userInfo().uid)
      throw new SkepError("file", `${path} belongs to somebody else: set SKEP_RUN to a folder of your own`);
    chmodSync(path, 0o700);
  } catch (error) {
    if (error instanceof SkepError) throw error;
    throw new SkepError("file", `cannot make ${path} for control sockets: ${message(error)}`, { cause: error });
  }
  return path;
}

function message(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Names of the machines that have a socket; some may be leftovers. */
export function socketNames(): string[] {
  try {
    return readdirSync(runDirectory())
      .filter((file) => file.endsWith(SUFFIX))
      .map((file) => file.slice(0, -SUFFIX.length))
      .sort();
  } catch {
    return [];
  }
}

function pathOf(name: string, directory = runDirectory()): string {
  checkName(name);
  return join(directory, name + SUFFIX);
}

function connect(path: string): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = createConnection(path);
    socket.once("connect", () => resolve(socket));
    socket.once("error", reject);
  });
}

/** Answers every line of a connection, one after the other. */
async function serve(socket: Socket, handle: (request: unknown) => Promise<unknown>): Promise<void> {
  for await (const line of lines(socket)) {
    let answer: Answer;
    try {
      answer = { result: (await handle(bodyOf(JSON.parse(line)))) ?? null };
    } catch (error) {
      const code = error instanceof SkepError ? error.code : error instanceof SyntaxError ? "config" : "internal";
      answer = { error: message(error), code };
    }
    socket.write(`${JSON.stringify(answer)}\n`);
  }
  socket.end();
}

function bodyOf(request: unknown): unknown {
  const { version, body } = (request ?? {}) as Partial<Envelope>;
  if (version === PROTOCOL_VERSION) return body;
  throw new SkepError(
    "config",
    `this machine's control protocol has version ${PROTOCOL_VERSION}, the request is of ${version === undefined ? "none" : version}: use the skep that started it`,
  );
}

async function* lines(socket: Socket): AsyncGenerator<string> {
  let rest = "";
  socket.setEncoding("utf8");
  for await (const text of socket) {
    rest += text;
    for (let end = rest.indexOf("\n"); end >= 0; end = rest.indexOf("\n")) {
      yield rest.slice(0, end);
      rest = rest.slice(end + 1);
    }
    if (rest.length > LINE_MAX) throw new SkepError("config", "a request is too long");
  }
}

export interface ControlSocket {
  close(): void;
}

/** Listens under a machine's name. A socket that a dead process left is replaced; the name of a running machine is refused. */
export async function listenForControl(
  name: string,
  handle: (request: unknown) => Promise<unknown>,
): Promise<ControlSocket> {
  const path = pathOf(name, ownDirectory());
  const alive = await connect(path).then(
    (socket) => {
      socket.destroy();
      return true;
    },
    () => false,
  );
  if (alive) throw new SkepError("config", `a machine named "${name}" is running: choose another --name`);
  try {
    unlinkSync(path);
  } catch {
    // There was none.
  }
  const open = new Set<Socket>();
  const server = createServer((socket) => {
    open.add(socket);
    socket.on("error", () => undefined);
    socket.on("close", () => open.delete(socket));
    serve(socket, handle).catch(() => socket.destroy());
  });
  await listen(server, path);
  server.unref();
  return {
    close() {
      server.close();
      for (const socket of open) socket.destroy();
    },
  };
}

function listen(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", (error) =>
      reject(new SkepError("file", `cannot listen on ${path}: ${error.message}`, { cause: error })),
    );
    // The socket is made by this call, at once: it never exists with more rights than these.
    const mask = process.umask(0o177);
    try {
      server.listen(path, () => resolve());
    } finally {
      process.umask(mask);
    }
  });
}

/** A connection to a running machine. */
export class ControlClient {
  private readonly socket: Socket;
  private readonly answers: AsyncGenerator<string>;

  private constructor(socket: Socket) {
    this.socket = socket;
    this.answers = lines(socket);
  }

  static async connect(name: string): Promise<ControlClient> {
    try {
      return new ControlClient(await connect(pathOf(name)));
    } catch (error) {
      if (error instanceof SkepError) throw error;
      const running = socketNames();
      const known = running.length === 0 ? "none is running" : `known are: ${running.join(", ")}`;
      throw new SkepError("config", `there is no running machine "${name}" (${known})`, { cause: error });
    }
  }

  /** Sends one request and waits for its answer; what the machine refuses is a SkepError. */
  async request(request: unknown): Promise<unknown> {
    const envelope: Envelope = { version: PROTOCOL_VERSION, body: request };
    this.socket.write(`${JSON.stringify(envelope)}\n`);
    const { value, done } = await this.answers.next();
    if (done) throw new SkepError("state", "the machine ended before it answered");
    const answer = JSON.parse(value) as Answer;
    if ("error" in answer) throw new SkepError(answer.code, answer.error);
    return answer.result;
  }

  close(): void {
    this.socket.destroy();
  }
}
