// Arithmetic flags as what they come from: the operation with its operands, from which the stored form (src/isa/state.ts: FRES, FX, FCF) or
// a condition is computed where it is wanted. Translated code remembers the last operation while it is being made, and in locals across blocks.

import type { Bits } from "../../isa/semantics.ts";
import { FCF, FRES, FX } from "../../isa/state.ts";
import type { Code } from "../../wasm/code.ts";
import type { Memory } from "../../wasm/memory.ts";
import type { FuncRef, ModuleBuilder } from "../../wasm/module.ts";
import { i32, i64, op, type Val } from "../../wasm/value.ts";
import { signExtended, zeroExtended } from "../env.ts";

/** The stored form. */
export interface FlagParts {
  readonly fres: Val;
  readonly fx: Val;
  readonly fcf: Val;
}

/** Where flags come from; all values are fixed. */
export type FlagSource =
  | { readonly kind: "sub" | "add"; readonly bits: Bits; readonly a: Val; readonly b: Val; readonly r?: Val }
  | { readonly kind: "logic"; readonly bits: Bits; readonly r: Val }
  /** An increment or decrement, which keeps the carry of what was before. */
  | {
      readonly kind: "step";
      readonly bits: Bits;
      readonly a: Val;
      readonly r: Val;
      readonly up: boolean;
      readonly carry: Val;
    }
  /** A product, whose CF and OF are what `excess` computes from the fixed values. */
  | {
      readonly kind: "product";
      readonly bits: Bits;
      readonly r: Val;
      readonly from: readonly Val[];
      readonly excess: () => Val;
    }
  /** A comparison of two numbers of one floating-point type. */
  | { readonly kind: "compare"; readonly a: Val; readonly b: Val }
  | { readonly kind: "parts"; readonly fres: Val; readonly fx: Val; readonly fcf: Val }
  /** Only the flag locals know. */
  | { readonly kind: "dynamic" };

/** Values of the local that tells what the flag locals hold. SUB and ADD are followed by the same for 16, 32 and 64 bits. The numbers of a
 *  comparison are there as bits of binary64, which compare as those of binary32 do. */
export const FLAG_KIND = { MEMORY: 0, PARTS: 1, SUB: 2, ADD: 6, LOGIC: 10, COMPARE: 11 } as const;

export function widthIndex(bits: Bits): number {
  return Math.log2(bits / 8);
}

export const WIDTH_BITS: readonly Bits[] = [8, 16, 32, 64];

/** The result of a subtraction or addition. */
export function resultOf(source: FlagSource & { kind: "sub" | "add" }): Val {
  return source.r ?? (source.kind === "sub" ? source.a.sub(source.b) : source.a.add(source.b));
}

/** How two numbers relate; SDM Vol. 2A COMISD: unordered ones are less and equal. */
function related(source: FlagSource & { kind: "compare" }) {
  const { a, b } = source;
  const is = (name: string): Val => op(`${a.type}.${name}`, a, b);
  return {
    carry: (): Val => is("ge").eqz(),
    zero: (): Val => is("lt").or(is("gt")).eqz(),
    carryOrZero: (): Val => is("gt").eqz(),
    unordered: (): Val => op(`${a.type}.ne`, a, a).or(op(`${b.type}.ne`, b, b)),
  };
}

/** The carry, 0 or 1, where the source knows it. */
export function carryOf(source: FlagSource): Val | undefined {
  switch (source.kind) {
    case "sub":
      return zeroExtended(source.bits, source.a).ltU(zeroExtended(source.bits, source.b));
    case "add": {
      const r = resultOf(source);
      return source.bits < 32 ? r.bits(source.bits, 1) : r.ltU(source.a);
    }
    case "logic":
      return i32(0);
    case "step":
      return source.carry;
    case "product":
      return source.excess();
    case "compare":
      return related(source).carry();
    case "parts":
      return source.fcf.and(1);
    case "dynamic":
      return undefined;
  }
}

/** FRES alone. */
export function fresOf(source: FlagSource): Val | undefined {
  switch (source.kind) {
    case "sub":
    case "add":
      return signExtended(source.bits, resultOf(source));
    case "logic":
    case "step":
    case "product":
      return signExtended(source.bits, source.r);
    case "compare":
      return related(source).zero().xor(1).zx();
    case "parts":
      return source.fres;
    case "dynamic":
      return undefined;
  }
}

export function partsOf(source: Exclude<FlagSource, { kind: "dynamic" }>): FlagParts {
  const fres = fresOf(source) as Val;
  const fcf = source.kind === "parts" ? source.fcf : (carryOf(source) as Val);
  switch (source.kind) {
    case "sub":
    case "add":
      return { fres, fx: signExtended(source.bits, source.a.xor(source.b).xor(resultOf(source))), fcf };
    case "logic":
      return { fres, fx: i64(0), fcf };
    case "step": {
      const { bits, a, r, up, carry } = source;
      const limit = 1n << BigInt(bits - 1);
      const overflow = fres
        .eq(up ? -limit : limit - 1n)
        .xor(carry)
        .zx()
        .shl(63);
      const adjust = a.xor(r).xor(1).and(16);
      return { fres, fx: adjust.zx().or(overflow), fcf };
    }
    case "product":
      // OF is CF.
      return { fres, fx: i64(0), fcf };
    case "compare": {
      // OF, SF and AF are clear.
      const { zero, unordered } = related(source);
      return { fres, fx: fcf.zx().shl(63), fcf: fcf.or(zero().xor(unordered()).shl(16)) };
    }
    case "parts":
      return source;
  }
}

/** The condition of Jcc without its lowest bit, where the source gives it more directly than the stored form does. */
export function directCondition(source: FlagSource, base: number): Val | undefined {
  if (source.kind === "dynamic" || source.kind === "parts") return undefined;
  if (source.kind === "compare") {
    const { carry, zero, carryOrZero, unordered } = related(source);
    const never = (): Val => i32(0);
    return [never, carry, zero, carryOrZero, never, unordered, never, zero][base]();
  }
  const { bits } = source;
  if (source.kind === "logic") {
    const { r } = source;
    const signed = bits < 32 ? r.extend(bits as 8 | 16) : r;
    switch (base) {
      case 0:
      case 1:
        return i32(0);
      case 2:
      case 3:
        return zeroExtended(bits, r).eqz();
      case 4:
      case 6:
        return signed.ltS(0);
      case 7:
        return signed.leS(0);
      default:
        return undefined;
    }
  }
  const r = source.kind === "step" || source.kind === "product" ? source.r : resultOf(source);
  if (base === 4) return (bits < 32 ? r.extend(bits as 8 | 16) : r).ltS(0);
  if (source.kind !== "sub") return base === 2 ? zeroExtended(bits, r).eqz() : undefined;
  const a = zeroExtended(bits, source.a);
  const b = zeroExtended(bits, source.b);
  const sa = bits < 32 ? source.a.extend(bits as 8 | 16) : source.a;
  const sb = bits < 32 ? source.b.extend(bits as 8 | 16) : source.b;
  switch (base) {
    case 1:
      return a.ltU(b);
    case 2:
      return a.eq(b);
    case 3:
      return a.leU(b);
    case 6:
      return sa.ltS(sb);
    case 7:
      return sa.leS(sb);
    default:
      return undefined;
  }
}

/** The source that flag locals of a kind hold; undefined for those in memory. */
export function sourceOfKind(
  kind: number,
  a: Val,
  b: Val,
  carry: Val,
): Exclude<FlagSource, { kind: "dynamic" }> | undefined {
  if (kind === FLAG_KIND.MEMORY) return undefined;
  if (kind === FLAG_KIND.PARTS) return { kind: "parts", fres: a, fx: b, fcf: carry };
  if (kind === FLAG_KIND.COMPARE) {
    return { kind: "compare", a: op("f64.reinterpret_i64", a), b: op("f64.reinterpret_i64", b) };
  }
  if (kind === FLAG_KIND.LOGIC) return { kind: "logic", bits: 64, r: a };
  const bits = WIDTH_BITS[(kind - FLAG_KIND.SUB) & 3];
  const narrow = (value: Val): Val => (bits === 64 ? value : value.wrap());
  return { kind: kind < FLAG_KIND.ADD ? "sub" : "add", bits, a: narrow(a), b: narrow(b) };
}

export interface FlagFunctions {
  /** (kind, a, b, carry) -> FRES, FX, FCF. */
  readonly flagParts: FuncRef;
  /** The same into the vCPU's memory. */
  readonly spillFlags: FuncRef;
}

/** What regions call where flags are wanted that only the flag locals know. */
export function emitFlagFunctions(m: ModuleBuilder, cpu: Memory): FlagFunctions {
  const byKind = (c: Code, finish: (parts: FlagParts) => void): void => {
    const [kind, a, b, carry] = c.params;
    const kinds = Array.from({ length: FLAG_KIND.COMPARE }, (_, n) => n + 1);
    c.switch(
      kind,
      kinds.map((n) => [
        [n],
        () => finish(partsOf(sourceOfKind(n, a, b, carry) as Exclude<FlagSource, { kind: "dynamic" }>)),
      ]),
      () => finish({ fres: cpu.ld64(0, FRES.offset), fx: cpu.ld64(0, FX.offset), fcf: cpu.ld32(0, FCF.offset) }),
    );
  };
  const params = ["i32", "i64", "i64", "i32"] as const;
  const flagParts = m.func("flagParts", params, ["i64", "i64", "i32"], (c) => {
    byKind(c, ({ fres, fx, fcf }) => c.ret(fres, fx, fcf));
    c.unreachable();
  });
  const spillFlags = m.func("spillFlags", params, [], (c) => {
    byKind(c, ({ fres, fx, fcf }) => {
      c.st64(cpu, 0, fres, FRES.offset);
      c.st64(cpu, 0, fx, FX.offset);
      c.st32(cpu, 0, fcf, FCF.offset);
    });
  });
  return { flagParts, spillFlags };
}
