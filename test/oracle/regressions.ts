// Cases that once differed, each the smallest that showed it.

import type { Plan } from "./plan.ts";
import { CODE_BASE, DATA_BASE, FX, REQUEST } from "./record.ts";

export interface Regression {
  readonly what: string;
  /** The row that the bytes belong to, and where it is ambiguous the form. */
  readonly row: string;
  readonly form: Plan["form"];
  readonly mode: 32 | 64;
  readonly code: string;
  readonly at?: number;
  readonly gpr?: { readonly [number: number]: bigint };
  readonly flags?: number;
  readonly fcw?: number;
  readonly memory?: { readonly at: number; readonly bytes: readonly number[] };
}

const RAX = 0;
const RCX = 1;
const RDX = 2;
const RSP = 4;
const RDI = 7;
const AC = 0x40000;
const CODE_END = CODE_BASE + 0x2000;

export const REGRESSIONS: readonly Regression[] = [
  {
    what: "LOCK where memory is only the source",
    row: "03 /r: Gv, Ev",
    form: "memory",
    mode: 64,
    code: "f0 03 30",
    gpr: { [RAX]: BigInt(DATA_BASE) },
  },
  {
    what: "RIP-relative operand of an instruction without forms of its own",
    row: "C1 /1: Ev, Ib",
    form: "memory",
    mode: 64,
    code: "c1 0d f9 fb ff 0f 05",
  },
  {
    what: "#SS for a non-canonical operand off RSP",
    row: "F3 0F B8 /r: Gv, Ev",
    form: "memory",
    mode: 64,
    code: "f3 0f b8 14 24",
    gpr: { [RSP]: 0x1234_0000_2000_0000n },
  },
  {
    what: "#PF before an unmasked invalid operation that keeps FISTP from storing",
    row: "DF /7: Mq",
    form: "memory",
    mode: 64,
    code: "df 38",
    gpr: { [RAX]: BigInt(DATA_BASE - 4) },
    fcw: 0x37e,
  },
  {
    what: "ARPL reads first",
    row: "63 /r: Ew, Gw; i64",
    form: "memory",
    mode: 32,
    code: "63 10",
    gpr: { [RAX]: BigInt(DATA_BASE - 0x1000), [RDX]: 0n },
  },
  {
    what: "FNSAVE on a 16-byte boundary with alignment checking",
    row: "DD /6: M",
    form: "memory",
    mode: 64,
    code: "dd 30",
    gpr: { [RAX]: BigInt(DATA_BASE + 0x100) },
    flags: AC,
  },
  {
    what: "XSAVEC through CS",
    row: "NP 0F C7 /4: M; mem",
    form: "memory",
    mode: 32,
    code: "2e 0f c7 22",
    gpr: { [RAX]: 3n, [RDX]: BigInt(DATA_BASE + 0x400) },
  },
  {
    what: "LOCK on an instruction whose last byte is on a missing page",
    row: "66 0F 3A 20 /r: Vx, Mb, Ib",
    form: "memory",
    mode: 32,
    code: "f0 66 0f 3a 20 00 00",
    at: CODE_END - 6,
    gpr: { [RAX]: BigInt(DATA_BASE) },
  },
  {
    what: "MASKMOVDQU through CS",
    row: "66 0F F7 /r: Vx, Ux ; mem",
    form: "register",
    mode: 32,
    code: "2e 66 0f f7 d3",
    gpr: { [RDI]: BigInt(DATA_BASE) },
  },
  { what: "no such control register", row: "0F 20 /r: Rq, Cq; rm o64", form: "register", mode: 64, code: "0f 20 f1" },
  {
    what: "MOV from a control register whatever ModRM.mod is",
    row: "0F 20 /r: Rq, Cq; rm o64",
    form: "register",
    mode: 64,
    code: "0f 20 84",
  },
  {
    what: "POPA across a page end names the first byte that is missing",
    row: "61 ; i64 stack",
    form: "none",
    mode: 32,
    code: "61",
    gpr: { [RSP]: BigInt(DATA_BASE + 0x2000) },
  },
  {
    what: "a fault at the first element of a repetition with ECX",
    row: "F3 AE ; string",
    form: "none",
    mode: 64,
    code: "67 f3 ae",
    gpr: { [RCX]: 0xf7cf9ff60000000cn, [RDI]: 0xa68c757d20002000n },
  },
];

/** The request of a regression case. */
export function requestOf(regression: Regression): Uint8Array {
  const record = new Uint8Array(REQUEST.BYTES);
  const view = new DataView(record.buffer);
  const code = regression.code.split(" ").map((byte) => Number.parseInt(byte, 16));
  view.setUint32(REQUEST.MODE, regression.mode === 32 ? 1 : 0, true);
  view.setUint32(REQUEST.LENGTH, code.length, true);
  record.set(code, REQUEST.CODE);
  view.setBigUint64(REQUEST.RIP, BigInt(regression.at ?? CODE_BASE + 0x400), true);
  view.setBigUint64(REQUEST.RFLAGS, BigInt((regression.flags ?? 0) | 0x202), true);
  for (let n = 0; n < (regression.mode === 64 ? 16 : 8); n++) {
    view.setBigUint64(REQUEST.GPR + n * 8, regression.gpr?.[n] ?? BigInt(DATA_BASE + 0x800 + n * 16), true);
  }
  if (regression.memory !== undefined) {
    view.setUint32(REQUEST.PATCHES, regression.memory.at, true);
    view.setUint32(REQUEST.PATCHES + 4, regression.memory.bytes.length, true);
    record.set(regression.memory.bytes, REQUEST.PATCH_0);
  }
  const fx = REQUEST.FX;
  view.setUint16(fx + FX.FCW, regression.fcw ?? 0x37f, true);
  view.setUint32(fx + FX.MXCSR, 0x1f80, true);
  for (let n = 0; n < 8; n++) {
    // Infinity in a used register, so that a conversion to an integer is invalid.
    view.setBigUint64(fx + FX.ST + n * 16, 1n << 63n, true);
    view.setUint16(fx + FX.ST + n * 16 + 8, 0x7fff, true);
  }
  record[fx + FX.FTW] = 0xff;
  for (let n = 0; n < 16; n++) view.setBigUint64(fx + FX.XMM + n * 16, 0x8080_8080_8080_8080n + BigInt(n), true);
  return record;
}
