// What can be asked of one vCPU from outside while it is between two runs: registers, local interrupts, its local APIC's registers. Requests and
// answers are plain JSON, so that they can cross threads and sockets; registers are hexadecimal text, as wide as they are.

import { SkepError } from "../errors.ts";
import { ARITHMETIC_FLAGS, GPR, GPR_COUNT, STATE_FIELDS, VECTOR_STRIDE } from "../isa/state.ts";
import { ApicMode } from "../vmm/io/destination.ts";
import { Lvt, REGISTERS } from "../vmm/io/lapic-registers.ts";
import { type Section, StateError, type StateValue } from "../vmm/state.ts";
import type { Vcpu } from "../vmm/vcpu.ts";

export type VcpuRequest =
  | { readonly what: "vcpu-status" }
  | { readonly what: "registers" }
  | { readonly what: "set-registers"; readonly values: { readonly [name: string]: string } }
  | { readonly what: "nmi" }
  /** Fires LINT0 or LINT1 as the pin's local vector table entry says. */
  | { readonly what: "lint"; readonly pin: 0 | 1 }
  | { readonly what: "apic" };

export interface VcpuStatus {
  readonly cpu: number;
  readonly apicId: number;
  readonly activity: "running" | "halted" | "shutdown" | "wait-for-sipi";
  /** Instructions retired. */
  readonly instructions: number;
  /** CS:RIP and what else says where it is. */
  readonly position: string;
}

/** Registers by name, in the order of the manuals; values in hexadecimal. */
export type RegisterValues = { readonly [name: string]: string };

export interface ApicDump {
  readonly cpu: number;
  readonly mode: "disabled" | "xapic" | "x2apic";
  /** IA32_APIC_BASE. */
  readonly base: string;
  /** By the names of SDM Vol. 3A table 11-1; none where the APIC is disabled. */
  readonly registers: RegisterValues;
}

export type VcpuAnswer = VcpuStatus | RegisterValues | ApicDump | { readonly done: true };

/** Values of the ACTIVITY field, in order. */
const ACTIVITIES = ["running", "halted", "shutdown", "wait-for-sipi"] as const;
const XMM_BYTES = 16;
const X87_STRIDE = 16;
const X87_BYTES = 10;

/** A register inside the engine's saved section. */
interface Register {
  readonly bytes: number;
  read(fields: Section["fields"]): bigint;
  write(fields: Section["fields"], value: bigint): void;
}

function scalar(name: string, bytes: number, big: boolean): Register {
  return {
    bytes,
    read: (fields) => BigInt(fields[name] as bigint | number),
    write: (fields, value) => {
      fields[name] = big ? value : Number(value);
    },
  };
}

/** `bytes` little-endian bytes of a byte array. */
function slice(name: string, at: number, bytes: number): Register {
  return {
    bytes,
    read: (fields) =>
      (fields[name] as Uint8Array).subarray(at, at + bytes).reduceRight((sum, byte) => (sum << 8n) | BigInt(byte), 0n),
    write: (fields, value) => {
      const view = fields[name] as Uint8Array;
      for (let n = 0; n < bytes; n++) view[at + n] = Number((value >> BigInt(8 * n)) & 0xffn);
    },
  };
}

/** All registers by name. The arithmetic flags are part of `rflags`, which the engine keeps in a form of its own. */
function registerTable(): ReadonlyMap<string, Register> {
  const table = new Map<string, Register>();
  for (const [name, number] of Object.entries(GPR)) table.set(name.toLowerCase(), scalar(`gpr${number}`, 8, true));
  for (const field of STATE_FIELDS) {
    if (!field.saved || field.name.startsWith("flags.") || field.name === "rflags") continue;
    const big = field.type === "i64";
    table.set(field.name, scalar(field.name, big ? 8 : 4, big));
  }
  for (let n = 0; n < 8; n++) table.set(`x87.r${n}`, slice("x87", n * X87_STRIDE, X87_BYTES));
  for (let n = 0; n < GPR_COUNT; n++) table.set(`xmm${n}`, slice("vectors", n * VECTOR_STRIDE, XMM_BYTES));
  return table;
}

const TABLE = registerTable();
const RFLAGS_BYTES = 4;

function hexadecimal(value: bigint, bytes: number): string {
  return value.toString(16).padStart(bytes * 2, "0");
}

function readRegisters(vcpu: Vcpu): RegisterValues {
  const { fields } = vcpu.engine.save();
  const values: { [name: string]: string } = {};
  for (const [name, register] of TABLE) {
    values[name] = hexadecimal(register.read(fields), register.bytes);
    if (name === "rip") values.rflags = hexadecimal(BigInt(vcpu.engine.rflags()), RFLAGS_BYTES);
  }
  return values;
}

function parseValue(name: string, text: string, bytes: number): bigint {
  if (!/^(0x)?[0-9a-f]+$/i.test(text)) throw new SkepError("config", `"${text}" is no hexadecimal value for ${name}`);
  const value = BigInt(/^0x/i.test(text) ? text : `0x${text}`);
  if (value >> BigInt(bytes * 8) !== 0n)
    throw new SkepError("config", `${text} does not fit into the ${bytes * 8} bits of ${name}`);
  return value;
}

/** All or none: a name or a value that is wrong changes nothing. */
function setRegisters(vcpu: Vcpu, values: RegisterValues): void {
  const { engine } = vcpu;
  const section = engine.save();
  const fields: { [name: string]: StateValue } = { ...section.fields };
  let rflags: bigint | undefined;
  for (const [name, text] of Object.entries(values)) {
    const key = name.toLowerCase();
    if (key === "rflags") {
      rflags = parseValue(name, text, RFLAGS_BYTES);
      continue;
    }
    const register = TABLE.get(name) ?? TABLE.get(key);
    if (register === undefined) throw new SkepError("config", `there is no register "${name}"`);
    register.write(fields, parseValue(name, text, register.bytes));
  }
  if (rflags !== undefined) fields.rflags = Number(rflags) & ~ARITHMETIC_FLAGS;
  try {
    engine.check({ ...section, fields });
  } catch (error) {
    if (error instanceof StateError) throw new SkepError("config", error.message, { cause: error });
    throw error;
  }
  engine.restore({ ...section, fields });
  if (rflags !== undefined) engine.setRflags(Number(rflags));
  vcpu.registersSet();
}

function dumpApic(vcpu: Vcpu): ApicDump {
  const { apic } = vcpu;
  const registers: { [name: string]: string } = {};
  const x2apic = apic.mode === ApicMode.X2APIC;
  if (apic.mode !== ApicMode.DISABLED)
    REGISTERS.forEach((register, index) => {
      const access = x2apic ? register?.x2apic : register?.xapic;
      if (register === undefined || (access !== "rw" && access !== "ro")) return;
      const value = x2apic ? (apic.readX2apic(index) ?? 0n) : BigInt(apic.readMmio(index * 16, 4));
      registers[register.name] = hexadecimal(value, value > 0xffffffffn ? 8 : 4);
    });
  const mode = x2apic ? "x2apic" : apic.mode === ApicMode.DISABLED ? "disabled" : "xapic";
  return { cpu: vcpu.id, mode, base: hexadecimal(apic.readBase(), 8), registers };
}

/** Answers a request; the vCPU must not be running. */
export function answerVcpu(vcpu: Vcpu, request: VcpuRequest): VcpuAnswer {
  switch (request.what) {
    case "vcpu-status":
      return {
        cpu: vcpu.id,
        apicId: vcpu.apic.id,
        activity: ACTIVITIES[vcpu.activity],
        instructions: vcpu.engine.retired(),
        position: vcpu.position(),
      };
    case "registers":
      return readRegisters(vcpu);
    case "set-registers":
      setRegisters(vcpu, request.values);
      return { done: true };
    case "nmi":
      vcpu.requestNmi();
      return { done: true };
    case "lint":
      vcpu.apic.triggerLocal(request.pin === 0 ? Lvt.LINT0 : Lvt.LINT1);
      return { done: true };
    case "apic":
      return dumpApic(vcpu);
    default:
      throw new SkepError("config", "there is no such request to a vCPU");
  }
}
