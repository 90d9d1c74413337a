// What a machine is made of, and the check of what users ask for. Everything wrong with a request is a SkepError of one line, found before
// anything is built.

import { type CpuModel, CpuModelError, DEFAULT_CPU_MODEL, EXTENDED_DESTINATIONS, parseCpuModel } from "../cpu/model.ts";
import { apicIdOf, type CpuTopology } from "../cpu/topology.ts";
import { SkepError } from "../errors.ts";
import { MINIMUM_MEMORY } from "../firmware/e820.ts";
import type { BlockStorage } from "../host/block.ts";
import { RAM_LIMIT } from "../vmm/memory.ts";
import { isTraceKind, TRACE_KINDS, type TraceKind } from "../vmm/trace.ts";

export const ENGINES = ["interpret", "translate"] as const;
export type EngineName = (typeof ENGINES)[number];

export const COMPILER_PLACES = ["thread", "same"] as const;
export type CompilerPlace = (typeof COMPILER_PLACES)[number];

/** What becomes of accesses to MSRs that the processor has not. */
export const UNKNOWN_MSRS = ["fault", "ignore"] as const;
export type UnknownMsrs = (typeof UNKNOWN_MSRS)[number];

/** What makes machines faster or their clocks steadier and can be done without, to find out whether a fault is in it. */
export const ASSISTS = {
  "posted-accesses": "accesses to devices that no virtual CPU waits for",
  "halt-polling": "halted virtual CPUs look out before they sleep",
  "owed-ticks": "IRQ 0 ticks that came late are made up for",
  "larger-regions": "hot code is translated again, with what it calls",
} as const;
export type Assist = keyof typeof ASSISTS;

/** What becomes of a machine whose processors are all halted with interrupts off: it ends, or waits for an NMI from outside. */
export const ON_HALT = ["end", "wait"] as const;
export type OnHalt = (typeof ON_HALT)[number];

/** What virtual time does while the machine is paused or the host sleeps: it stands still, or is set forward afterwards. */
export const CLOCKS = ["freeze", "catch-up"] as const;
export type ClockPolicy = (typeof CLOCKS)[number];

/** What the embedding program may say about the machine itself; everything has a default. */
export interface MachineRequest {
  /** Bytes, or a number with K, M or G behind it. */
  readonly memory?: number | string;
  /** A number, or with how they are grouped: `8,sockets=2,cores=2,threads=2`. */
  readonly cpus?: number | string;
  /** A model with features added and taken away: `x86-64-v2,+movbe,-sse4_2`. */
  readonly cpu?: string;
  /** `fault` (#GP) or `ignore`: reads give zero, writes have no effect. */
  readonly unknownMsrs?: string;
  /** `end`, or `wait` for an NMI from outside, when all processors are halted with interrupts off. */
  readonly onHalt?: string;
  /** `freeze` or `catch-up`: virtual time while the machine is paused or the host sleeps. */
  readonly clock?: string;
  readonly engine?: string;
  /** `one` thread for all vCPUs in turn, or one for `each` of them, which machines with several have otherwise. */
  readonly threads?: string;
  /** Holds every execution of translated code, or one of so many, against the interpreter. */
  readonly checkRegions?: boolean | number;
  /** Count where the guest is, and tell at the end. */
  readonly profile?: boolean;
  /** An ELF file or a System.map with names for the profile; without one the kernel's own file or tables are looked at. */
  readonly symbols?: Uint8Array;
  /** Whether the translator's compiler has a `thread` of its own, or works on the `same` thread as the guest, as it does in deterministic machines. */
  readonly compiler?: string;
  /** True: at the usual port; or the port. */
  readonly debugExit?: boolean | number;
  /** Serial ports, 1 to 4. */
  readonly serialPorts?: number;
  readonly trace?: readonly string[];
  /** Names of `ASSISTS` to do without. */
  readonly without?: readonly string[];
  /** Runs that start alike go on alike; true, or the seed of the guest's random numbers. */
  readonly deterministic?: boolean | number;
}

/** One thread for all vCPUs, or one for each and one for the devices. */
export const THREADS = ["one", "each"] as const;
export type Threads = (typeof THREADS)[number];

export interface MachineConfig {
  readonly memoryBytes: number;
  readonly cpus: number;
  readonly topology: CpuTopology;
  /** There are APIC ids that only x2APIC mode knows, so processors are handed over to the guest in it. */
  readonly x2apicIds: boolean;
  readonly cpu: CpuModel;
  readonly unknownMsrs: UnknownMsrs;
  readonly onHalt: OnHalt;
  readonly clock: ClockPolicy;
  readonly engine: EngineName;
  readonly threads: Threads;
  /** One of so many executions of regions is checked; 0: none. */
  readonly checkRegions: number;
  readonly profile: boolean;
  readonly symbols: Uint8Array | undefined;
  readonly compiler: CompilerPlace;
  readonly debugExitPort: number | undefined;
  readonly serialPorts: number;
  readonly trace: readonly TraceKind[];
  readonly without: readonly Assist[];
  /** The seed of a deterministic machine. */
  readonly seed: number | undefined;
}

export interface DiskConfig {
  readonly storage: BlockStorage;
  /** Up to 20 ASCII characters that the guest can ask for. */
  readonly serial: string;
}

export interface KernelConfig {
  readonly bytes: Uint8Array;
  /** What messages and Multiboot kernels call it. */
  readonly name: string;
  readonly commandLine: string;
  readonly initrd?: Uint8Array;
  readonly modules?: readonly { readonly bytes: Uint8Array; readonly text: string }[];
}

export const DEFAULT_MEMORY = 512 * 2 ** 20;
export const DEFAULT_DEBUG_EXIT_PORT = 0xf4;
/** Slots of the bus that are left for disks. */
export const DISKS_MAX = 24;
export const CPUS_MAX = 512;
/** Where one thread runs them all, each is there from the start, with its engine. */
const CPUS_OF_ONE_THREAD_MAX = 64;
/** The least APIC id that eight bits cannot name: 255 is everybody (SDM Vol. 3A 11.12.1). */
const FIRST_X2APIC_ID = 255;
const SERIAL_PORTS_MAX = 4;
const PAGE = 4096;
const UNITS: { readonly [unit: string]: number } = { "": 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30 };
const MIB = 2 ** 20;

function bad(message: string): never {
  throw new SkepError("config", message);
}

/** The one of `names` that was asked for; `what` says in the error what has no such name. */
function oneOf<Name extends string>(names: readonly Name[], asked: string, what: (asked: string) => string): Name {
  return names.find((name) => name === asked) ?? bad(`unknown ${what(asked)}: known are ${names.join(", ")}`);
}

/** A size as users write it: `512M`, `1.5G`, `1048576`. */
export function parseSize(text: string, what: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*([KMG]?)(?:i?B)?$/i.exec(text.trim());
  if (match === null) bad(`${what} "${text}" is no size: write a number with K, M or G behind it, as in 512M`);
  return Math.round(Number(match[1]) * UNITS[match[2].toUpperCase()]);
}

function memoryBytes(memory: number | string): number {
  const bytes = typeof memory === "string" ? parseSize(memory, "memory") : memory;
  const text = typeof memory === "string" ? memory : `${memory} bytes`;
  if (!Number.isInteger(bytes) || bytes < 0) bad(`memory "${memory}" is no number of bytes`);
  if (bytes < MINIMUM_MEMORY) bad(`memory of ${text} is too small: a machine has at least ${MINIMUM_MEMORY / MIB}M`);
  if (bytes > RAM_LIMIT) bad(`memory of ${text} is too large: a machine has at most ${RAM_LIMIT / MIB}M`);
  return Math.floor(bytes / PAGE) * PAGE;
}

/** Where APIC ids ask for it, the model has x2APIC and tells guests how devices reach those ids, unless the request says otherwise. */
function cpuModel(text: string, x2apicIds: boolean): CpuModel {
  try {
    const asked = parseCpuModel(text);
    if (!x2apicIds) return asked;
    if (!asked.features.has("x2apic")) bad(`APIC ids from ${FIRST_X2APIC_ID} up need a CPU with x2apic`);
    const [name, ...flags] = text.split(",");
    return { ...parseCpuModel([name, `+${EXTENDED_DESTINATIONS}`, ...flags].join(",")), name: text };
  } catch (error) {
    if (error instanceof CpuModelError) throw new SkepError("config", error.message, { cause: error });
    throw error;
  }
}

const GROUPS = ["sockets", "cores", "threads"] as const;

/** Reads `N[,sockets=S][,cores=C][,threads=T]`. What is left out follows: one thread a core, one socket, and as many cores as it takes. */
function cpuCount(request: number | string): { cpus: number; topology: CpuTopology } {
  const [count, ...parts] = String(request).split(",");
  const cpus = /^(0x[0-9a-f]+|\d+)$/i.test(count) ? Number(count) : Number.NaN;
  if (!Number.isInteger(cpus) || cpus < 1) bad(`"${count}" is no number of CPUs`);
  if (cpus > CPUS_MAX) bad(`${cpus} CPUs are more than the ${CPUS_MAX} that a machine can have`);
  const given: Partial<Record<(typeof GROUPS)[number], number>> = {};
  for (const part of parts) {
    const [, name, value] = /^(\w+)=(\d+)$/.exec(part) ?? [];
    const group = GROUPS.find((known) => known === name);
    if (group === undefined)
      bad(`"${part}" is no part of a CPU topology: write it as in 8,sockets=2,cores=2,threads=2`);
    if (given[group] !== undefined) bad(`${group} is given twice in "${request}"`);
    if (Number(value) < 1) bad(`"${part}": there is at least one of each`);
    given[group] = Number(value);
  }
  const threads = given.threads ?? 1;
  const sockets = given.sockets ?? (given.cores === undefined ? 1 : cpus / (given.cores * threads));
  const cores = given.cores ?? cpus / (sockets * threads);
  if (!Number.isInteger(sockets) || !Number.isInteger(cores) || sockets * cores * threads !== cpus) {
    const asked = GROUPS.filter((group) => given[group] !== undefined).map((group) => `${group}=${given[group]}`);
    bad(`${cpus} CPUs cannot be grouped as ${asked.join(",")}`);
  }
  return { cpus, topology: { sockets, cores, threads } };
}

function debugExitPort(request: boolean | number | undefined): number | undefined {
  if (request === undefined || request === false) return undefined;
  if (request === true) return DEFAULT_DEBUG_EXIT_PORT;
  if (!Number.isInteger(request) || request < 0 || request > 0xfffc) bad(`debug exit port ${request} is no I/O port`);
  return request;
}

function seed(request: boolean | number | undefined): number | undefined {
  if (request === undefined || request === false) return undefined;
  if (request === true) return 0;
  if (!Number.isSafeInteger(request) || request < 0) bad(`"${request}" is no seed: it is a whole number`);
  return request;
}

function checkEvery(request: boolean | number | undefined, engine: EngineName): number {
  const every = request === true ? 1 : request === false ? 0 : (request ?? 0);
  if (!Number.isInteger(every) || every < 0) bad(`one of ${every} executions of regions cannot be checked`);
  if (every > 0 && engine !== "translate") bad(`only the engine "translate" has regions that can be checked`);
  return every;
}

function traceKind(name: string): TraceKind {
  if (isTraceKind(name)) return name;
  return bad(`there is no trace of "${name}": known are ${Object.keys(TRACE_KINDS).join(", ")}`);
}

function assist(name: string): Assist {
  const known = Object.keys(ASSISTS) as Assist[];
  return known.find((assist) => assist === name) ?? bad(`there is no assist "${name}": known are ${known.join(", ")}`);
}

/** Where hot code is translated, if it is: on one thread, whoever wants to read it has it made there (src/host/node/machine-worker.ts). */
export function compilerPlace(config: MachineConfig): CompilerPlace | undefined {
  if (config.engine !== "translate") return undefined;
  return config.threads === "one" && config.trace.includes("code") ? "same" : config.compiler;
}

/** Checks a request and fills in the defaults. */
export function machineConfig(request: MachineRequest): MachineConfig {
  const { cpus, topology } = cpuCount(request.cpus ?? 1);
  const x2apicIds = apicIdOf(topology, cpus - 1) >= FIRST_X2APIC_ID;
  const engine = oneOf(ENGINES, request.engine ?? "translate", (name) => `engine "${name}"`);
  const deterministic = seed(request.deterministic);
  const single = deterministic !== undefined || request.checkRegions || request.profile;
  const usual: Threads = cpus === 1 || single ? "one" : "each";
  const threads = oneOf(THREADS, request.threads ?? usual, (name) => `threads "${name}"`);
  if (threads === "one" && cpus > CPUS_OF_ONE_THREAD_MAX)
    bad(`${cpus} CPUs are more than the ${CPUS_OF_ONE_THREAD_MAX} that one thread can run`);
  if (threads === "each" && deterministic !== undefined) bad("a deterministic machine has one thread");
  if (threads === "each" && request.profile) bad("machines of one thread have profiles");
  if (threads === "each" && request.checkRegions) bad("regions are checked in machines of one thread");
  const place = request.compiler ?? (deterministic === undefined ? "thread" : "same");
  const compiler = oneOf(COMPILER_PLACES, place, (name) => `place "${name}" of the compiler`);
  if (compiler === "thread" && deterministic !== undefined)
    bad("a deterministic machine has no thread of the compiler");
  const unknownMsrs = oneOf(UNKNOWN_MSRS, request.unknownMsrs ?? "fault", (name) => `way "${name}" with unknown MSRs`);
  const onHalt = oneOf(ON_HALT, request.onHalt ?? "end", (name) => `end "${name}" of a halt`);
  const clock = oneOf(CLOCKS, request.clock ?? "freeze", (name) => `clock "${name}"`);
  if (clock === "catch-up" && deterministic !== undefined)
    bad("the time of a deterministic machine goes by instructions, and cannot catch up");
  const serialPorts = request.serialPorts ?? 1;
  if (!Number.isInteger(serialPorts) || serialPorts < 1 || serialPorts > SERIAL_PORTS_MAX)
    bad(`${serialPorts} serial ports: a machine has 1 to ${SERIAL_PORTS_MAX}`);
  return {
    memoryBytes: memoryBytes(request.memory ?? DEFAULT_MEMORY),
    cpus,
    topology,
    x2apicIds,
    cpu: cpuModel(request.cpu ?? DEFAULT_CPU_MODEL, x2apicIds),
    unknownMsrs,
    onHalt,
    clock,
    engine,
    threads,
    checkRegions: checkEvery(request.checkRegions, engine),
    profile: request.profile ?? false,
    symbols: request.symbols,
    compiler,
    debugExitPort: debugExitPort(request.debugExit),
    serialPorts,
    trace: (request.trace ?? []).map(traceKind),
    without: (request.without ?? []).map(assist),
    seed: deterministic,
  };
}
