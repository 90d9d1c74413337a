// What registers and memory operands hold before a case: values of the kind that the instruction works on, and others.

import type { Case } from "./generate.ts";
import { double, extended, integer64, type Random, single } from "./random.ts";
import { FX } from "./record.ts";

type Kind = "single" | "double" | "extended" | "integer" | "decimal";

function likelyKind(k: Case): Kind {
  const { row } = k.plan;
  const { r } = k;
  if (row.map === 0 && row.opcode >= 0xd8 && row.opcode <= 0xdf)
    return r.pick<Kind>(["single", "double", "extended", "integer", "decimal"]);
  const name = row.instruction.name;
  if (r.chance(10)) return "integer";
  if (/PS$|SS$|PS2|SS2/.test(name))
    return /2PS|2SS/.test(name) ? r.pick<Kind>(["single", "integer", "double"]) : "single";
  if (/PD$|SD$|PD2|SD2/.test(name))
    return /2PD|2SD/.test(name) ? r.pick<Kind>(["double", "integer", "single"]) : "double";
  return "integer";
}

function fill(r: Random, kind: Kind, bytes: Uint8Array): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const whole = bytes.length;
  switch (kind) {
    case "single":
      for (let at = 0; at + 4 <= whole; at += 4) view.setUint32(at, single(r), true);
      return;
    case "double":
      for (let at = 0; at + 8 <= whole; at += 8) view.setBigUint64(at, double(r), true);
      return;
    case "extended": {
      if (whole < 10) return;
      const [significand, top] = extended(r);
      view.setBigUint64(0, significand, true);
      view.setUint16(8, top, true);
      return;
    }
    case "decimal":
      for (let at = 0; at < whole; at++) bytes[at] = r.chance(4) ? r.next() : r.below(10) | (r.below(10) << 4);
      return;
    default: {
      // Lanes of one width, so that neighbours meet.
      const lane = r.pick([1, 2, 4, 8]);
      for (let at = 0; at < whole; at += lane) {
        const value = integer64(r);
        for (let i = 0; i < lane && at + i < whole; i++) bytes[at + i] = Number((value >> BigInt(8 * i)) & 0xffn);
      }
    }
  }
}

/** Content for the memory operand. */
export function operandContent(k: Case, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  fill(k.r, "integer", bytes);
  fill(k.r, likelyKind(k), bytes);
  return bytes;
}

/** An MXCSR value: mostly the default, else any rounding, masks, DAZ, FTZ and sticky flags (SDM Vol. 1 10.2.3). */
export function randomMxcsr(r: Random): number {
  if (r.chance(30)) return 0x1f80;
  let value = (r.below(4) << 13) | 0x1f80;
  if (r.chance(25)) value |= 0x8000;
  if (r.chance(25)) value |= 0x40;
  if (r.chance(40)) value |= r.below(64);
  if (r.chance(30)) value &= ~(r.below(64) << 7);
  return value;
}

/** x87 control word: precision and rounding by chance, mostly all masked (SDM Vol. 1 8.1.5). */
export function randomFcw(r: Random): number {
  if (r.chance(30)) return 0x37f;
  const masks = r.chance(70) ? 0x3f : r.below(64);
  return 0x40 | masks | (r.pick([0, 2, 3, 3]) << 8) | (r.below(4) << 10);
}

/** A status word that belongs to a control word: ES and B set just where an unmasked exception is flagged (SDM Vol. 1 8.1.3). */
export function randomFsw(r: Random, fcw: number): number {
  let flags = r.chance(50) ? 0 : r.below(128);
  if (!r.chance(5)) flags &= fcw & 0x3f;
  const error = (flags & ~fcw & 0x3f) !== 0;
  return flags | (r.next() & 0x7f00) | (error ? 0x8080 : 0);
}

/** Fills an FXSAVE image. */
export function randomFx(k: Case, image: Uint8Array): void {
  const { r } = k;
  const view = new DataView(image.buffer, image.byteOffset, image.byteLength);
  const { row } = k.plan;
  const x87 = row.map === 0 && row.opcode >= 0xd8 && row.opcode <= 0xdf;
  const vector = row.operands.some(({ kind }) => "VWU".includes(kind));
  image.fill(0);
  const fcw = x87 || r.chance(10) ? randomFcw(r) : 0x37f;
  view.setUint16(FX.FCW, fcw, true);
  view.setUint16(FX.FSW, randomFsw(r, fcw), true);
  image[FX.FTW] = r.chance(50) ? 0xff : r.chance(30) ? 0 : r.next();
  view.setUint16(FX.FOP, r.below(0x800), true);
  view.setBigUint64(FX.FIP, r.bits64() & 0x7fff_ffff_ffffn, true);
  view.setBigUint64(FX.FDP, r.bits64() & 0x7fff_ffff_ffffn, true);
  view.setUint32(FX.MXCSR, randomMxcsr(r), true);
  for (let n = 0; n < 8; n++) {
    const [significand, top] = extended(r);
    view.setBigUint64(FX.ST + n * 16, significand, true);
    view.setUint16(FX.ST + n * 16 + 8, top, true);
  }
  const registers = k.long ? 16 : 8;
  if (vector)
    for (let n = 0; n < registers; n++) fill(r, likelyKind(k), image.subarray(FX.XMM + n * 16, FX.XMM + n * 16 + 16));
  else for (let at = FX.XMM; at < FX.XMM + registers * 16; at += 4) view.setUint32(at, r.next(), true);
}
