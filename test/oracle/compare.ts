// Compares what the host and the engine made of a case, and tells a difference so that it can be understood: bytes, disassembly,
// the input that matters, both outcomes.

import { Decoder, DecoderOptions, Formatter, FormatterSyntax } from "iced-x86";
import { FLAG } from "../../src/isa/state.ts";
import { allowed } from "./differences.ts";
import type { Plan } from "./plan.ts";
import { DATA_BASE, FX, REQUEST, RESULT } from "./record.ts";

const LETTERS: { readonly [letter: string]: number } = {
  O: FLAG.OF,
  S: FLAG.SF,
  Z: FLAG.ZF,
  A: FLAG.AF,
  P: FLAG.PF,
  C: FLAG.CF,
};

function flagMask(letters: string): number {
  return [...letters].reduce((mask, letter) => mask | LETTERS[letter], 0);
}

/** A result's length in its stream. */
export function resultLength(results: Uint8Array, at: number): number {
  return RESULT.HEAD + 8 * new DataView(results.buffer, results.byteOffset + at).getUint32(RESULT.CHANGED, true);
}

export interface Difference {
  readonly field: string;
  readonly host: string;
  readonly engine: string;
}

function hex(value: number | bigint, digits = 0): string {
  return `0x${(typeof value === "number" ? value >>> 0 : value).toString(16).padStart(digits, "0")}`;
}

const REGISTERS = "rax rcx rdx rbx rsp rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15".split(" ");

function flagNames(value: number): string {
  const names = Object.entries(FLAG).filter(([name, bit]) => name !== "IOPL" && (value & bit) !== 0);
  return `${hex(value)} [${names.map(([name]) => name).join(" ")}]`;
}

/** What differs, without what is undefined or allowed. */
export function differences(
  plan: Plan,
  request: Uint8Array,
  host: Uint8Array,
  engine: Uint8Array,
  known?: (why: string) => void,
): readonly Difference[] {
  const h = new DataView(host.buffer, host.byteOffset, host.byteLength);
  const e = new DataView(engine.buffer, engine.byteOffset, engine.byteLength);
  // MXCSR_MASK is the processor's.
  h.setUint32(RESULT.FX + FX.MXCSR + 4, 0, true);
  e.setUint32(RESULT.FX + FX.MXCSR + 4, 0, true);
  if (Buffer.compare(host, engine) === 0) return [];
  const found: Difference[] = [];
  const add = (field: string, a: string, b: string): void => {
    if (a !== b) found.push({ field, host: a, engine: b });
  };
  const word = (field: string, at: number): void => add(field, hex(h.getUint32(at, true)), hex(e.getUint32(at, true)));
  const long = (field: string, at: number): void =>
    add(field, hex(h.getBigUint64(at, true)), hex(e.getBigUint64(at, true)));
  word("vector", RESULT.VECTOR);
  word("error", RESULT.ERROR);
  long("cr2", RESULT.CR2);
  long("rip", RESULT.RIP);
  const mask = ~flagMask(plan.row.instruction.undefined ?? "");
  add("rflags", flagNames(h.getUint32(RESULT.RFLAGS, true) & mask), flagNames(e.getUint32(RESULT.RFLAGS, true) & mask));
  word("cs, ss", RESULT.CODE_AND_STACK);
  word("ds, es", RESULT.DS_AND_ES);
  REGISTERS.forEach((name, n) => {
    long(name, RESULT.GPR + n * 8);
  });
  const fx = RESULT.FX;
  const half = (field: string, at: number): void => add(field, hex(h.getUint16(at, true)), hex(e.getUint16(at, true)));
  half("fcw", fx + FX.FCW);
  half("fsw", fx + FX.FSW);
  half("ftw", fx + FX.FTW);
  half("fop", fx + FX.FOP);
  long("fip", fx + FX.FIP);
  long("fdp", fx + FX.FDP);
  word("mxcsr", fx + FX.MXCSR);
  const quad = (view: DataView, at: number): string =>
    `${hex(view.getBigUint64(at + 8, true), 16)}:${view.getBigUint64(at, true).toString(16).padStart(16, "0")}`;
  for (let n = 0; n < 8; n++) add(`st${n}`, quad(h, fx + FX.ST + n * 16), quad(e, fx + FX.ST + n * 16));
  for (let n = 0; n < 16; n++) add(`xmm${n}`, quad(h, fx + FX.XMM + n * 16), quad(e, fx + FX.XMM + n * 16));
  const words = (view: DataView): Map<number, number> => {
    const map = new Map<number, number>();
    for (let k = 0; k < view.getUint32(RESULT.CHANGED, true); k++)
      map.set(view.getUint32(RESULT.HEAD + k * 8, true), view.getUint32(RESULT.HEAD + k * 8 + 4, true));
    return map;
  };
  const hostWords = words(h);
  const engineWords = words(e);
  for (const index of new Set([...hostWords.keys(), ...engineWords.keys()])) {
    const show = (value: number | undefined): string => (value === undefined ? "unchanged" : hex(value, 8));
    add(`[${hex(DATA_BASE + index * 4)}]`, show(hostWords.get(index)), show(engineWords.get(index)));
  }
  return found.filter((difference) => {
    const why = allowed(plan, request, h, e, difference.field);
    if (why !== undefined) known?.(why);
    return why === undefined;
  });
}

export function disassemble(request: Uint8Array): string {
  const q = new DataView(request.buffer, request.byteOffset, request.byteLength);
  const length = q.getUint32(REQUEST.LENGTH, true);
  const code = request.slice(REQUEST.CODE, REQUEST.CODE + length);
  const decoder = new Decoder([64, 32, 16][q.getUint32(REQUEST.MODE, true)], code, DecoderOptions.None);
  decoder.ip = q.getBigUint64(REQUEST.RIP, true);
  const formatter = new Formatter(FormatterSyntax.Intel);
  const instruction = decoder.decode();
  const text = formatter.format(instruction);
  instruction.free();
  formatter.free();
  decoder.free();
  return text;
}

/** A difference as text. */
export function describe(plan: Plan, seed: string, request: Uint8Array, found: readonly Difference[]): string {
  const q = new DataView(request.buffer, request.byteOffset, request.byteLength);
  const length = q.getUint32(REQUEST.LENGTH, true);
  const bytes = [...request.subarray(REQUEST.CODE, REQUEST.CODE + length)].map((b) => b.toString(16).padStart(2, "0"));
  const lines = [
    `${plan.row.instruction.name} "${plan.row.text}" mode ${plan.mode} size ${plan.size} ${plan.form}, seed ${seed}`,
    `  ${hex(q.getBigUint64(REQUEST.RIP, true))}: ${bytes.join(" ")}   ${disassemble(request)}`,
    `  in:   rflags ${flagNames(q.getUint32(REQUEST.RFLAGS, true))} mxcsr ${hex(q.getUint32(REQUEST.FX + FX.MXCSR, true))}`,
  ];
  const gprs = REGISTERS.slice(0, plan.mode === 64 ? 16 : 8).map(
    (name, n) => `${name}=${q.getBigUint64(REQUEST.GPR + n * 8, true).toString(16)}`,
  );
  lines.push(`        ${gprs.join(" ")}`);
  const { row } = plan;
  const vectors = row.operands.some(({ kind }) => "VWU".includes(kind) && kind.length === 1);
  const x87 =
    (row.map === 0 && row.opcode >> 3 === 0x1b) ||
    row.operands.some(({ kind }) => "PQN".includes(kind) && kind.length === 1);
  const fx = REQUEST.FX;
  const quad = (at: number): string =>
    `${q.getBigUint64(at + 8, true).toString(16)}:${q.getBigUint64(at, true).toString(16).padStart(16, "0")}`;
  if (vectors) {
    const modrm = bytes.length;
    const count = plan.mode === 64 && modrm > 0 ? 16 : 8;
    for (let n = 0; n < count; n += 4)
      lines.push(`        ${[0, 1, 2, 3].map((k) => `xmm${n + k}=${quad(fx + FX.XMM + (n + k) * 16)}`).join(" ")}`);
  }
  if (x87) {
    lines.push(
      `        fcw=${hex(q.getUint16(fx, true))} fsw=${hex(q.getUint16(fx + FX.FSW, true))} ftw=${hex(request[fx + FX.FTW])}`,
    );
    for (let n = 0; n < 8; n += 4)
      lines.push(`        ${[0, 1, 2, 3].map((k) => `st${n + k}=${quad(fx + FX.ST + (n + k) * 16)}`).join(" ")}`);
  }
  for (let slot = 0; slot < 2; slot++) {
    const count = q.getUint32(REQUEST.PATCHES + slot * 8 + 4, true);
    if (count === 0) continue;
    const from = slot === 0 ? REQUEST.PATCH_0 : REQUEST.PATCH_1;
    const content = [...request.subarray(from, from + Math.min(count, 32))]
      .map((b) => b.toString(16).padStart(2, "0"))
      .join(" ");
    lines.push(`        [${hex(q.getUint32(REQUEST.PATCHES + slot * 8, true))}] ${content}${count > 32 ? " ..." : ""}`);
  }
  for (const { field, host, engine } of found.slice(0, 12)) lines.push(`  ${field}: host ${host}, engine ${engine}`);
  return lines.join("\n");
}
