// The options of the commands, once: parsing, checking and help all come from this table. Parsing itself is node:util's.

import { parseArgs } from "node:util";
import { CPU_MODEL_NAMES, DEFAULT_CPU_MODEL } from "../cpu/model.ts";
import { SkepError } from "../errors.ts";
import { checkName } from "../host/node/control-socket.ts";
import type { DiskOptions, ModuleOptions, VirtualMachineOptions } from "../index.ts";
import {
  ASSISTS,
  CLOCKS,
  COMPILER_PLACES,
  DEFAULT_DEBUG_EXIT_PORT,
  ENGINES,
  ON_HALT,
  UNKNOWN_MSRS,
} from "../machine/config.ts";
import { TRACE_KINDS } from "../vmm/trace.ts";

/** Where the first serial port goes. */
export type SerialTarget =
  | { readonly kind: "stdio" }
  | { readonly kind: "null" }
  | { readonly kind: "file"; readonly path: string };

/** What a command line asks for. */
export interface RunOptions {
  readonly machine: Omit<VirtualMachineOptions, "kernel"> & { readonly kernel: string | undefined };
  readonly serial: SerialTarget;
  readonly stats: boolean;
  /** File with names for the profile. */
  readonly symbols: string | undefined;
  /** Under which `skep ctl` finds the machine. */
  readonly name: string;
  readonly help: boolean;
}

interface Option {
  /** What stands for the value in help; absent: the option takes none. */
  readonly value?: string;
  /** The value may be left out. */
  readonly optional?: boolean;
  readonly multiple?: boolean;
  /** Lines of help. */
  readonly help: readonly string[];
  /** Not an option of `start`, which brings its own. */
  readonly runOnly?: boolean;
}

const OPTIONS: { readonly [name: string]: Option } = {
  kernel: {
    value: "FILE",
    runOnly: true,
    help: ["the kernel: a Linux bzImage, an ELF file with a PVH note, or a Multiboot 1 image"],
  },
  initrd: { value: "FILE", runOnly: true, help: ["the kernel's initramfs"] },
  append: { value: "TEXT", help: ["the kernel's command line"] },
  module: { value: '"FILE ARGS"', multiple: true, runOnly: true, help: ["a Multiboot module; may be given again"] },
  memory: { value: "SIZE", help: ["guest memory, as in 512M, which is what a machine has otherwise"] },
  cpus: {
    value: "N[,sockets=S,cores=C,threads=T]",
    help: ["number of virtual CPUs, and how they are grouped (1; otherwise one socket of cores)"],
  },
  cpu: {
    value: "MODEL[,+flag,-flag]",
    help: [
      `the CPU model, with features added and taken away (${DEFAULT_CPU_MODEL});`,
      `models: ${CPU_MODEL_NAMES.join(", ")}`,
    ],
  },
  "unknown-msrs": {
    value: UNKNOWN_MSRS.join("|"),
    help: ["MSRs that the CPU has not: #GP, or reads give 0 and writes have no effect (fault)"],
  },
  "on-halt": {
    value: ON_HALT.join("|"),
    help: ["all CPUs halted with interrupts off: the machine ends,", "or waits for skep ctl NAME nmi (end)"],
  },
  clock: {
    value: CLOCKS.join("|"),
    help: [
      "guest time while the machine is paused or the host sleeps:",
      "stands still, or is set forward when it goes on (freeze)",
    ],
  },
  disk: {
    value: "FILE[,readonly]",
    multiple: true,
    help: ["a raw image as a virtio disk; may be given again"],
  },
  serial: { value: "stdio|null|file:PATH", help: ["where the first serial port goes (stdio)"] },
  "debug-exit": {
    value: "PORT",
    optional: true,
    help: [
      `a port (0x${DEFAULT_DEBUG_EXIT_PORT.toString(16)}) through which the guest ends the run with status (value << 1) | 1`,
    ],
  },
  engine: { value: "NAME", help: [`how guest code is executed: ${ENGINES.join(", ")} (translate)`] },
  compiler: {
    value: COMPILER_PLACES.join("|"),
    help: ["whether code is translated on a thread of its own, or on the same as it runs on"],
  },
  threads: {
    value: "one|each",
    help: ["one thread for all virtual CPUs in turn, or one for each (each, where there are several)"],
  },
  name: { value: "NAME", help: ["the name under which skep ctl finds the machine (vm and the process number)"] },
  deterministic: {
    value: "SEED",
    optional: true,
    help: ["time from instructions, random numbers from a seed (0):", "runs that start alike go on alike"],
  },
  "check-regions": {
    value: "N",
    optional: true,
    help: [
      "for finding faults of skep: hold every execution of translated code, or one of N,",
      "against the interpreter; a difference ends the run with a report (slow)",
    ],
  },
  profile: {
    value: "FILE",
    optional: true,
    help: [
      "count where the guest is, and print its functions on standard error at the end; names come",
      "from an ELF file or a System.map, else from the kernel's file or its own tables in memory",
    ],
  },
  stats: { help: ["print counters on standard error at the end"] },
  trace: {
    value: "WHAT",
    multiple: true,
    help: [
      "print events on standard error as they happen; several, with commas between:",
      ...Object.entries(TRACE_KINDS).map(([kind, meaning]) => `  ${kind.padEnd(12)}${meaning}`),
    ],
  },
  without: {
    value: "WHAT",
    multiple: true,
    help: [
      "for finding faults of skep: do without; several, with commas between:",
      ...Object.entries(ASSISTS).map(([name, meaning]) => `  ${name.padEnd(16)}${meaning}`),
    ],
  },
  help: { help: ["print this"] },
};

const HELP_COLUMN = 30;

/** The table as text. */
export function optionsHelp(command: "run" | "start"): string {
  const lines: string[] = [];
  for (const [name, option] of Object.entries(OPTIONS)) {
    if (command === "start" && option.runOnly) continue;
    const value = option.value === undefined ? "" : option.optional ? `[=${option.value}]` : ` ${option.value}`;
    const usage = `  --${name}${value}`;
    const [first, ...more] = option.help;
    if (usage.length < HELP_COLUMN - 1) lines.push(usage.padEnd(HELP_COLUMN) + first);
    else lines.push(usage, " ".repeat(HELP_COLUMN) + first);
    for (const line of more) lines.push(" ".repeat(HELP_COLUMN) + line);
  }
  return lines.join("\n");
}

function bad(message: string): never {
  throw new SkepError("config", message);
}

/** Values are joined to their options, so that a value may begin with a dash. */
function joined(args: readonly string[]): string[] {
  const out: string[] = [];
  for (let i = 0; i < args.length; i++) {
    const arg = args[i];
    if (arg === "--") return [...out, ...args.slice(i)];
    const name = arg.startsWith("--") && !arg.includes("=") ? arg.slice(2) : "";
    const option = Object.hasOwn(OPTIONS, name) ? OPTIONS[name] : undefined;
    if (option?.value === undefined) out.push(arg);
    else if (option.optional) out.push(`${arg}=`);
    else if (i + 1 < args.length) out.push(`${arg}=${args[++i]}`);
    else bad(`option --${name} needs a value: --${name} ${option.value}`);
  }
  return out;
}

type Values = { [name: string]: string | boolean | (string | boolean)[] | undefined };

function parse(command: "run" | "start", args: readonly string[]): Values {
  const known = Object.entries(OPTIONS).filter(([, option]) => command === "run" || !option.runOnly);
  try {
    const { values, positionals } = parseArgs({
      args: joined(args),
      allowPositionals: true,
      options: Object.fromEntries(
        known.map(([name, option]) => [
          name,
          {
            type: option.value === undefined ? ("boolean" as const) : ("string" as const),
            multiple: option.multiple ?? false,
          },
        ]),
      ),
    });
    if (positionals.length > 0) bad(`"${positionals[0]}" is no option; see skep ${command} --help`);
    return values;
  } catch (error) {
    if (error instanceof SkepError) throw error;
    const message = error instanceof Error ? error.message : String(error);
    const unknown = /Unknown option '([^']*)'/.exec(message)?.[1];
    return bad(unknown === undefined ? message : `unknown option ${unknown}; see skep ${command} --help`);
  }
}

function disk(text: string): DiskOptions {
  const comma = text.lastIndexOf(",");
  const option = comma < 0 ? "" : text.slice(comma + 1);
  if (option === "readonly") return { file: text.slice(0, comma), readOnly: true };
  return { file: text, readOnly: false };
}

function module(text: string): ModuleOptions {
  const [, file, rest] = /^\s*(\S+)\s*(.*)$/s.exec(text) ?? [];
  if (file === undefined) bad('option --module needs a file: --module "FILE ARGS"');
  return { file, arguments: rest };
}

function serial(text: string): SerialTarget {
  if (text === "stdio" || text === "null") return { kind: text };
  if (text.startsWith("file:") && text.length > 5) return { kind: "file", path: text.slice(5) };
  return bad(`"--serial ${text}" is not known: it is stdio, null or file:PATH`);
}

function checkedName(name: string): string {
  checkName(name);
  return name;
}

function integer(text: string, option: string): number {
  if (!/^(0x[0-9a-f]+|\d+)$/i.test(text)) bad(`"--${option} ${text}" is no number`);
  return Number(text);
}

/** Reads a command line. Anything wrong with it is a SkepError. */
export function parseOptions(command: "run" | "start", args: readonly string[]): RunOptions {
  const values = parse(command, args);
  const text = (name: string): string | undefined => values[name] as string | undefined;
  const list = (name: string): readonly string[] => (values[name] as string[] | undefined) ?? [];
  const given = <T>(name: string, use: (value: string) => T): T | undefined => {
    const value = text(name);
    return value === undefined ? undefined : use(value);
  };
  const debugExit = given("debug-exit", (port) => (port === "" ? true : integer(port, "debug-exit")));
  const check = given("check-regions", (every) => (every === "" ? true : integer(every, "check-regions")));
  const trace = list("trace").flatMap((names) => names.split(","));
  return {
    help: values.help === true,
    stats: values.stats === true,
    symbols: given("profile", (file) => (file === "" ? undefined : file)),
    name: given("name", checkedName) ?? `vm${process.pid}`,
    serial: given("serial", serial) ?? { kind: "stdio" },
    machine: {
      kernel: text("kernel"),
      commandLine: text("append") ?? "",
      modules: list("module").map(module),
      disks: list("disk").map(disk),
      trace,
      without: list("without").flatMap((names) => names.split(",")),
      ...optional("initrd", text("initrd")),
      ...optional("memory", text("memory")),
      ...optional("cpus", text("cpus")),
      ...optional("cpu", text("cpu")),
      ...optional("unknownMsrs", text("unknown-msrs")),
      ...optional("onHalt", text("on-halt")),
      ...optional("clock", text("clock")),
      ...optional("engine", text("engine")),
      ...optional("threads", text("threads")),
      ...optional("checkRegions", check),
      ...optional(
        "profile",
        given("profile", () => true),
      ),
      ...optional("compiler", text("compiler")),
      ...optional("debugExit", debugExit),
      ...optional(
        "deterministic",
        given("deterministic", (seed) => (seed === "" ? true : integer(seed, "deterministic"))),
      ),
    },
  };
}

function optional<Name extends string, T>(name: Name, value: T | undefined): { readonly [name in Name]?: T } {
  return value === undefined ? {} : ({ [name]: value } as { readonly [name in Name]: T });
}
