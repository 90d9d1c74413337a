// Runs one machine between the command line's options and its exit status.

import { createWriteStream, type WriteStream } from "node:fs";
import { readFile } from "node:fs/promises";
import { SkepError } from "../errors.ts";
import { type ControlSocket, listenForControl } from "../host/node/control-socket.ts";
import { reason } from "../host/node/file-block.ts";
import { VirtualMachine, type VirtualMachineOptions } from "../index.ts";
import { handleControl } from "./control-handler.ts";
import type { RunOptions, SerialTarget } from "./options.ts";
import { statisticsText } from "./statistics-text.ts";
import { ESCAPE_HELP, EscapeFilter, rawMode } from "./terminal.ts";

/** Exit status after a signal, as shells count it. */
const SIGNALS = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 } as const;

type Output = NodeJS.WritableStream;

/** Copies a stream to its end, no faster than the target takes it. A target that is closed ends the machine. */
async function pump(from: ReadableStream<Uint8Array>, to: Output, vm: VirtualMachine): Promise<void> {
  let broken = false;
  let drained: (() => void) | undefined;
  const fail = (): void => {
    broken = true;
    drained?.();
    void vm.stop();
  };
  to.on("error", fail);
  for await (const chunk of from) {
    if (broken) continue;
    const { promise, resolve } = Promise.withResolvers<void>();
    drained = resolve;
    if (to.write(chunk)) resolve();
    else to.once("drain", resolve);
    await promise;
  }
}

async function openSerialFile(path: string): Promise<WriteStream> {
  const stream = createWriteStream(path);
  await new Promise<void>((resolve, reject) => {
    stream.once("open", () => resolve());
    stream.once("error", (error) =>
      reject(new SkepError("file", `cannot write the serial output to ${path}: ${reason(error)}`, { cause: error })),
    );
  });
  return stream;
}

/** Standard input to the guest; gives what ends it. */
function typeInto(vm: VirtualMachine): () => void {
  const { stdin } = process;
  const restore = rawMode(stdin);
  const filter = stdin.isTTY ? new EscapeFilter() : undefined;
  const writer = vm.serial.writable.getWriter();
  const onData = (data: Buffer): void => {
    const typed = filter?.take(data) ?? { bytes: new Uint8Array(data), quit: false, help: false };
    if (typed.help) process.stderr.write(`\r\n${ESCAPE_HELP.join("\r\n")}\r\n`);
    if (typed.quit) void vm.stop();
    if (typed.bytes.length === 0) return;
    stdin.pause();
    writer.write(typed.bytes).then(
      () => stdin.resume(),
      () => undefined,
    );
  };
  stdin.on("data", onData);
  stdin.on("error", () => undefined);
  return () => {
    stdin.off("data", onData);
    stdin.pause();
    restore();
  };
}

async function connectSerial(vm: VirtualMachine, target: SerialTarget): Promise<{ done: Promise<void>; end(): void }> {
  if (target.kind === "null") {
    await vm.serial.readable.cancel();
    return { done: Promise.resolve(), end: () => {} };
  }
  if (target.kind === "stdio") {
    const end = typeInto(vm);
    return { done: pump(vm.serial.readable, process.stdout, vm), end };
  }
  const file = await openSerialFile(target.path);
  const done = pump(vm.serial.readable, file, vm).then(() => new Promise<void>((resolve) => file.end(resolve)));
  return { done, end: () => {} };
}

async function readSymbols(path: string): Promise<Uint8Array> {
  try {
    return await readFile(path);
  } catch (error) {
    throw new SkepError("file", `cannot read the symbols in ${path}: ${reason(error)}`, { cause: error });
  }
}

/** Runs a machine to its end; the exit status. */
export async function runMachine(machine: VirtualMachineOptions, options: RunOptions): Promise<number> {
  const { symbols } = options;
  const vm = await VirtualMachine.create(
    symbols === undefined ? machine : { ...machine, symbols: await readSymbols(symbols) },
  );
  let signalled: number | undefined;
  const onSignal = (signal: keyof typeof SIGNALS): void => {
    signalled = SIGNALS[signal];
    void vm.stop();
  };
  for (const signal of Object.keys(SIGNALS)) process.on(signal, onSignal);
  let control: ControlSocket | undefined;
  try {
    control = await listenForControl(options.name, (request) => handleControl(vm, request));
    const traces = pump(vm.traces, process.stderr, vm);
    const serial = await connectSerial(vm, options.serial);
    try {
      await vm.start();
      const exit = await vm.exited;
      await Promise.all([serial.done, traces]);
      serial.end();
      if (exit.reason === "error") process.stderr.write(`skep: ${exit.message ?? "the machine failed"}\n`);
      else if (exit.reason === "stopped" && signalled === undefined) process.stderr.write("\nskep: stopped\n");
      if (options.stats) process.stderr.write(`${statisticsText(await vm.statistics())}\n`);
      return signalled ?? exit.status & 0xff;
    } finally {
      serial.end();
    }
  } finally {
    control?.close();
    await vm.stop();
    for (const signal of Object.keys(SIGNALS)) process.off(signal, onSignal);
  }
}
