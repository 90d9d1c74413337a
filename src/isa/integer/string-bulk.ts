// REP MOVS and REP STOS by whole pages of guest RAM. Each call does what lies within one page of source and destination, or within a few that
// follow each other in RAM, and gives the number of elements done, or 0 where the next element must go the ordinary way (a fault, MMIO, an
// element that crosses a page, a segment's end).

import { i64, op, select, type Val } from "../../wasm/value.ts";
import { type Helper, helper } from "../helper.ts";
import { addressMask, indexRegister } from "../segmentation.ts";
import type { Bits, Env } from "../semantics.ts";
import { GPR, SREG } from "../state.ts";
import {
  extend,
  hostOf,
  isBackwards,
  least,
  leaveChecked,
  MOST_BYTES,
  moveIndex,
  noneIf,
  ramAddress,
  stretch,
} from "./string-stretch.ts";

/** Host offset of the lowest of `bytes` bytes whose first element is at `host`. */
function lowest(host: Val, backwards: Val, bytes: Val, element: number): Val {
  return select(backwards, host.sub(bytes).add(element), host);
}

/** (segment, address size, elements wanted) -> elements moved. */
function moveHelper(bits: Bits): Helper {
  const bytes = bits / 8;
  const log = Math.log2(bytes);
  return helper(`moveBulk${bits}`, ["i32", "i32", "i64"], ["i64"], (x, segment, size, wanted) => {
    const { c } = x;
    const mask = c.let(addressMask(size));
    const backwards = isBackwards(x);
    const source = stretch(x, bytes, segment, indexRegister(x, GPR.RSI, mask), mask, backwards, 0);
    const destination = stretch(x, bytes, SREG.ES, indexRegister(x, GPR.RDI, mask), mask, backwards, 1);
    const most = c.let(least(x, wanted, i64(MOST_BYTES / bytes)));
    const elements = (): Val => least(x, least(x, source.elements, destination.elements), most);
    noneIf(x, elements().eqz());
    leaveChecked(x, bytes, source, destination);
    const read = hostOf(x, source);
    const written = hostOf(x, destination);
    // A destination that begins within the source repeats what was written: copy no further than up to there, or one element.
    const ahead = c.let(select(backwards, read.sub(written), written.sub(read)));
    c.if(ahead.geU(MOST_BYTES), () => {
      extend(x, source, read, most);
      // Marked as written (SDM Vol. 3A 4.8) are pages that will be.
      extend(x, destination, written, least(x, source.elements, most));
    });
    const count = c.local("i32", elements().wrap().shl(log));
    c.if(ahead.ne(0).and(ahead.ltU(count)), () => {
      c.set(count, ahead.and(-bytes));
      c.if(count.eqz(), () => c.set(count, bytes));
    });
    const place = (host: Val): Val => ramAddress(x, lowest(host, backwards, count, bytes));
    c.memoryCopy(x.ram, place(written), x.ram, place(read), ramAddress(x, count));
    const moved = c.let(count.zx());
    moveIndex(x, GPR.RSI, size, mask, backwards, moved);
    moveIndex(x, GPR.RDI, size, mask, backwards, moved);
    x.done(count.shrU(log).zx());
  });
}

const ONES: { readonly [bits in Bits]: bigint } = {
  8: 0x0101010101010101n,
  16: 0x0001000100010001n,
  32: 0x0000000100000001n,
  64: 1n,
};

/** Fills with eight bytes again and again, from the start of one of their elements on. */
function fillPattern(x: Env, from: Val, bytes: Val, pattern: Val, element: number): void {
  const { c } = x;
  const at = c.local("i32", from);
  const end = c.let(from.add(bytes));
  const whole = c.let(from.add(bytes.and(-64)));
  const wide = c.let(op("i64x2.splat", pattern));
  c.loop((head) => {
    c.if(at.ltU(whole), () => {
      for (let n = 0; n < 64; n += 16) c.store(x.ram, 16, ramAddress(x, at), wide, n);
      c.set(at, at.add(64));
      c.br(head);
    });
  });
  c.loop((head) => {
    c.if(at.ltU(end), () => {
      c.store(x.ram, element as 1 | 2 | 4 | 8, ramAddress(x, at), pattern);
      c.set(at, at.add(element));
      c.br(head);
    });
  });
}

/** (address size, elements wanted) -> elements stored from the accumulator. */
function storeHelper(bits: Bits): Helper {
  const bytes = bits / 8;
  const log = Math.log2(bytes);
  return helper(`storeBulk${bits}`, ["i32", "i64"], ["i64"], (x, size, wanted) => {
    const { c } = x;
    const mask = c.let(addressMask(size));
    const backwards = isBackwards(x);
    const destination = stretch(x, bytes, SREG.ES, indexRegister(x, GPR.RDI, mask), mask, backwards, 1);
    const most = c.let(least(x, wanted, i64(MOST_BYTES / bytes)));
    noneIf(x, least(x, destination.elements, most).eqz());
    leaveChecked(x, bytes, destination);
    const host = hostOf(x, destination);
    extend(x, destination, host, most);
    const count = c.let(least(x, destination.elements, most).wrap().shl(log));
    const from = c.let(lowest(host, backwards, count, bytes));
    const pattern = c.let(x.gpr(GPR.RAX, bits).zx().mul(ONES[bits]));
    c.if(
      pattern.eq(pattern.and(0xff).mul(ONES[8])),
      () => c.memoryFill(x.ram, ramAddress(x, from), pattern.wrap().and(0xff), ramAddress(x, count)),
      () => fillPattern(x, from, count, pattern, bytes),
    );
    moveIndex(x, GPR.RDI, size, mask, backwards, c.let(count.zx()));
    x.done(count.shrU(log).zx());
  });
}

export const MOVE_BULK: { readonly [bits in Bits]: Helper } = {
  8: moveHelper(8),
  16: moveHelper(16),
  32: moveHelper(32),
  64: moveHelper(64),
};
export const STORE_BULK: { readonly [bits in Bits]: Helper } = {
  8: storeHelper(8),
  16: storeHelper(16),
  32: storeHelper(32),
  64: storeHelper(64),
};
