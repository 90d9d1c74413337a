// `skep ctl`: asks a running machine through its control socket (bhyve's bhyvectl). Commands, their arguments and help come from one table.

import { readFileSync, writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { SkepError } from "../errors.ts";
import { ControlClient, socketNames } from "../host/node/control-socket.ts";
import { reason } from "../host/node/file-block.ts";
import { type IoApicPin, IRQ_ACTIONS, type MachineStatus, readPieces, writePieces } from "../machine/control.ts";
import type { ApicDump, RegisterValues, VcpuRequest } from "../machine/vcpu-control.ts";
import { statisticsText } from "./statistics-text.ts";

interface Given {
  readonly args: readonly string[];
  /** The vCPU of --cpu. */
  readonly cpu: number | undefined;
  readonly file: string | undefined;
}

interface CtlCommand {
  readonly usage: string;
  readonly help: string;
  /** Fewest and most arguments. */
  readonly args: readonly [number, number];
  /** Does it; the result, for --json. */
  run(client: ControlClient, given: Given): Promise<unknown>;
  /** The result for people; without, nothing is printed. */
  text?(result: never): string;
}

const plain = (command: string) => (client: ControlClient) => client.request({ command });

function control(client: ControlClient, request: object): Promise<unknown> {
  return client.request({ command: "control", request });
}

function vcpu(client: ControlClient, cpu: number | "all", request: VcpuRequest): Promise<unknown> {
  return control(client, { what: "vcpu", cpu, request });
}

function number(text: string, what: string): number {
  const value = /^(0x[0-9a-f]+|\d+)$/i.test(text) ? Number(text) : Number.NaN;
  if (!Number.isSafeInteger(value)) throw new SkepError("config", `"${text}" is no ${what}`);
  return value;
}

function statusText(status: MachineStatus): string {
  const lines = [
    `${status.state}, ${(status.timeNs / 1e9).toFixed(3)} s of guest time, ${status.memoryBytes / 2 ** 20} MiB of memory`,
  ];
  const { engine, compiler, threads, seed, topology, x2apicIds, vcpuThreads } = status;
  const translates =
    compiler === undefined ? "" : `, compiler on ${compiler === "same" ? "the same thread" : "a thread of its own"}`;
  lines.push(`engine ${engine}${translates}${seed === undefined ? "" : `, deterministic from seed ${seed}`}`);
  lines.push(`threads ${threads}, of vCPUs ${vcpuThreads}`);
  const { sockets, cores, threads: siblings } = topology;
  lines.push(
    `cpu ${status.cpu}, sockets ${sockets} cores ${cores} threads ${siblings}${x2apicIds ? ", x2APIC ids" : ""}`,
  );
  lines.push(`on halt ${status.onHalt}, clock ${status.clock}`);
  if (status.without.length > 0) lines.push(`without ${status.without.join(", ")}`);
  for (const { cpu, apicId, activity, instructions, position } of status.vcpus)
    lines.push(`vcpu${cpu} apic ${apicId} ${activity} ${instructions} instructions, at ${position}`);
  return lines.join("\n");
}

function valuesText(values: RegisterValues): string {
  const width = Math.max(...Object.keys(values).map((name) => name.length));
  return Object.entries(values)
    .map(([name, value]) => `${name.padEnd(width)} ${value}`)
    .join("\n");
}

function apicText(dump: ApicDump): string {
  return `vcpu${dump.cpu} ${dump.mode} base ${dump.base}\n${dump.mode === "disabled" ? "" : valuesText(dump.registers)}`.trimEnd();
}

function ioApicText(pins: readonly IoApicPin[]): string {
  return pins
    .map((pin) => {
      const flags = [
        pin.trigger,
        pin.activeLow ? "low" : "high",
        pin.logical ? "logical" : "physical",
        ...(pin.masked ? ["masked"] : []),
        ...(pin.remoteIrr ? ["remote-irr"] : []),
        ...(pin.deliveryPending ? ["pending"] : []),
        ...(pin.assertions > 0 ? [`asserted by ${pin.assertions}`] : []),
      ];
      const pinName = `pin ${String(pin.pin).padStart(2)}`;
      return `${pinName} vector ${pin.vector.toString(16).padStart(2, "0")} to ${pin.destination} ${pin.deliveryMode} ${flags.join(" ")}`;
    })
    .join("\n");
}

function hexDump(gpa: number, bytes: Uint8Array): string {
  const lines: string[] = [];
  for (let at = 0; at < bytes.length; at += 16) {
    const row = bytes.subarray(at, at + 16);
    const hex = Array.from(row, (byte) => byte.toString(16).padStart(2, "0")).join(" ");
    const text = Array.from(row, (byte) => (byte >= 32 && byte < 127 ? String.fromCharCode(byte) : ".")).join("");
    lines.push(`${(gpa + at).toString(16).padStart(9, "0")}  ${hex.padEnd(47)}  ${text}`);
  }
  return lines.join("\n");
}

async function readMemory(client: ControlClient, given: Given): Promise<unknown> {
  const gpa = number(given.args[0], "guest-physical address");
  const length = number(given.args[1], "length in bytes");
  const bytes = Buffer.from(await readPieces((request) => control(client, request), gpa, length));
  if (given.file === undefined) return { gpa, bytes: bytes.toString("hex") };
  try {
    writeFileSync(given.file, bytes);
  } catch (error) {
    throw new SkepError("file", `cannot write ${given.file}: ${reason(error)}`, { cause: error });
  }
  return { gpa, length, file: given.file };
}

async function writeMemory(client: ControlClient, given: Given): Promise<unknown> {
  const gpa = number(given.args[0], "guest-physical address");
  const bytes = bytesToWrite(given);
  await writePieces((request) => control(client, request), gpa, bytes);
  return { gpa, length: bytes.length };
}

function bytesToWrite(given: Given): Buffer {
  const hex = given.args.slice(1).join("");
  if ((given.file === undefined) === (hex === ""))
    throw new SkepError("config", "write-memory needs either bytes in hexadecimal or --file FILE");
  if (given.file === undefined) {
    if (!/^([0-9a-f]{2})+$/i.test(hex)) throw new SkepError("config", `"${hex}" are no bytes in hexadecimal`);
    return Buffer.from(hex, "hex");
  }
  try {
    return readFileSync(given.file);
  } catch (error) {
    throw new SkepError("file", `cannot read ${given.file}: ${reason(error)}`, { cause: error });
  }
}

const COMMANDS: { readonly [name: string]: CtlCommand } = {
  status: {
    usage: "",
    help: "state of the machine and of each vCPU",
    args: [0, 0],
    run: (client) => control(client, { what: "status" }),
    text: statusText,
  },
  stats: { usage: "", help: "all counters", args: [0, 0], run: plain("stats"), text: statisticsText },
  pause: { usage: "", help: "stop guest code and guest time", args: [0, 0], run: plain("pause") },
  resume: { usage: "", help: "go on after pause", args: [0, 0], run: plain("resume") },
  reset: { usage: "", help: "the reset button: power-on state, the kernel anew", args: [0, 0], run: plain("reset") },
  "power-button": { usage: "", help: "ask the guest to power off", args: [0, 0], run: plain("power-button") },
  stop: { usage: "", help: "end the machine as if its power were cut", args: [0, 0], run: plain("stop") },
  nmi: {
    usage: "[--cpu N]",
    help: "a non-maskable interrupt to one vCPU or all",
    args: [0, 0],
    run: (client, { cpu }) => vcpu(client, cpu ?? "all", { what: "nmi" }),
  },
  lint: {
    usage: "PIN [--cpu N]",
    help: "fire local interrupt pin 0 or 1",
    args: [1, 1],
    run: (client, { args, cpu }) => {
      const pin = number(args[0], "pin");
      if (pin !== 0 && pin !== 1) throw new SkepError("config", "the local interrupt pins are 0 and 1");
      return vcpu(client, cpu ?? "all", { what: "lint", pin });
    },
  },
  irq: {
    usage: `N ${IRQ_ACTIONS.join("|")}`,
    help: "drive an ISA interrupt line",
    args: [2, 2],
    run: (client, { args }) =>
      control(client, { what: "irq", irq: number(args[0], "interrupt line"), action: args[1] }),
  },
  regs: {
    usage: "[NAME ...] [--cpu N]",
    help: "registers of a vCPU (0), all or those named",
    args: [0, 1000],
    run: async (client, { args, cpu }) => {
      const values = (await vcpu(client, cpu ?? 0, { what: "registers" })) as RegisterValues;
      if (args.length === 0) return values;
      return Object.fromEntries(
        args.map((name) => {
          if (!Object.hasOwn(values, name)) throw new SkepError("config", `there is no register "${name}"`);
          return [name, values[name]];
        }),
      );
    },
    text: valuesText,
  },
  "set-regs": {
    usage: "NAME=HEX ... [--cpu N]",
    help: "set registers of a vCPU (0) while the machine is paused",
    args: [1, 1000],
    run: (client, { args, cpu }) => {
      const values = args.map((arg) => {
        const [, name, value] = /^([^=]+)=(.+)$/.exec(arg) ?? [];
        if (name === undefined) throw new SkepError("config", `"${arg}" is not of the form NAME=HEX`);
        return [name, value];
      });
      return vcpu(client, cpu ?? 0, { what: "set-registers", values: Object.fromEntries(values) });
    },
  },
  "read-memory": {
    usage: "GPA LENGTH [--file FILE]",
    help: "guest-physical memory, as a dump or into a file",
    args: [2, 2],
    run: readMemory,
    text: (result: { gpa: number; bytes?: string; file?: string }) =>
      result.bytes === undefined ? "" : hexDump(result.gpa, Buffer.from(result.bytes, "hex")),
  },
  "write-memory": {
    usage: "GPA HEX ... | GPA --file FILE",
    help: "write guest-physical memory",
    args: [1, 1000],
    run: writeMemory,
  },
  apic: {
    usage: "[--cpu N]",
    help: "registers of the local APIC of one vCPU or all",
    args: [0, 0],
    run: async (client, { cpu }) => {
      const dumps = await vcpu(client, cpu ?? "all", { what: "apic" });
      return Array.isArray(dumps) ? dumps : [dumps];
    },
    text: (dumps: readonly ApicDump[]) => dumps.map(apicText).join("\n\n"),
  },
  ioapic: {
    usage: "",
    help: "the pins of the I/O APIC",
    args: [0, 0],
    run: (client) => control(client, { what: "ioapic" }),
    text: ioApicText,
  },
};

const HELP_COLUMN = 44;

export function ctlHelp(): string {
  const lines = Object.entries(COMMANDS).map(([name, { usage, help }]) => {
    const form = `  ${name} ${usage}`.trimEnd();
    return form.length < HELP_COLUMN - 1
      ? form.padEnd(HELP_COLUMN) + help
      : `${form}\n${" ".repeat(HELP_COLUMN)}${help}`;
  });
  return [
    "skep ctl list                 names of the running machines",
    "skep ctl NAME COMMAND ...     asks one of them; --json prints the answer as JSON",
    "",
    ...lines,
    "",
    "A machine's name is what --name said, else the word vm and the number of its process.",
    "",
  ].join("\n");
}

async function list(): Promise<string[]> {
  const alive = await Promise.all(
    socketNames().map(async (name) => {
      try {
        (await ControlClient.connect(name)).close();
        return [name];
      } catch {
        return [];
      }
    }),
  );
  return alive.flat();
}

/** Runs `skep ctl` with its arguments. */
export async function runCtl(argv: readonly string[]): Promise<number> {
  const { values, positionals } = parse(argv);
  const [name, command, ...args] = positionals;
  if (values.help === true || name === undefined) {
    process.stdout.write(ctlHelp());
    return values.help === true ? 0 : 4;
  }
  const print = (result: unknown, text: string): void => {
    if (values.json === true) process.stdout.write(`${JSON.stringify(result)}\n`);
    else if (text !== "") process.stdout.write(`${text}\n`);
  };
  if (name === "list" && command === undefined) {
    const names = await list();
    print(names, names.join("\n"));
    return 0;
  }
  if (command === undefined) throw new SkepError("config", `what of ${name}? See skep ctl --help`);
  const entry = Object.hasOwn(COMMANDS, command) ? COMMANDS[command] : undefined;
  if (entry === undefined) throw new SkepError("config", `there is no command "${command}"; see skep ctl --help`);
  if (args.length < entry.args[0] || args.length > entry.args[1])
    throw new SkepError("config", `it is: skep ctl ${name} ${command} ${entry.usage}`.trimEnd());
  const cpu = values.cpu === undefined ? undefined : number(values.cpu, "vCPU");
  const client = await ControlClient.connect(name);
  try {
    const result = await entry.run(client, { args, cpu, file: values.file });
    print(result ?? null, entry.text?.(result as never) ?? "");
  } finally {
    client.close();
  }
  return 0;
}

function parse(argv: readonly string[]) {
  try {
    return parseArgs({
      args: [...argv],
      allowPositionals: true,
      options: {
        cpu: { type: "string" },
        file: { type: "string" },
        json: { type: "boolean" },
        help: { type: "boolean", short: "h" },
      },
    });
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    const unknown = /Unknown option '([^']*)'/.exec(message)?.[1];
    throw new SkepError("config", unknown === undefined ? message : `unknown option ${unknown}; see skep ctl --help`);
  }
}
