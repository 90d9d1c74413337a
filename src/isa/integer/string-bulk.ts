// Forward REP MOVS and REP STOS by whole pages of guest RAM. Each call does what lies within one page of source and destination and gives
// the number of elements done, or 0 where the next element must go the ordinary way (a fault, MMIO, a page or segment end, backwards).

import type { Local } from "../../wasm/code.ts";
import { i64, select, type Val } from "../../wasm/value.ts";
import { type Helper, helper, hostAddress } from "../helper.ts";
import {
  addressMask,
  in64BitMode,
  indexRegister,
  linearAddress,
  segmentRoom,
  setIndexRegister,
} from "../segmentation.ts";
import type { Bits, Env } from "../semantics.ts";
import { CPL, FLAG, GPR, RFLAGS, SREG } from "../state.ts";

const PAGE = 4096;

function least(x: Env, a: Val, b: Val): Val {
  const first = x.c.let(a);
  const second = x.c.let(b);
  return x.c.let(select(first.ltU(second), first, second));
}

/** Where an operand lies, and how far it may go on from there in bytes, at most to the end of the page. */
function stretch(x: Env, segment: Val | number, offset: Val, mask: Val, write: number): { linear: Local; bytes: Val } {
  const { c } = x;
  const linear = c.local("i64", offset);
  const room = c.local("i64");
  c.if(
    in64BitMode(x),
    () => {
      if (typeof segment !== "number") {
        c.if(segment.geU(SREG.FS), () => c.set(linear, x.call(linearAddress, segment, offset)));
      }
      c.set(room, toPageEnd(linear));
    },
    () => {
      c.set(linear, x.call(linearAddress, segment, offset));
      c.set(room, least(x, x.call(segmentRoom, segment, offset, write), toPageEnd(linear)));
    },
    "likely",
  );
  // The index register may wrap within the page: go on one by one there.
  return { linear, bytes: c.let(select(room.sub(1).gtU(mask.sub(offset)), i64(0), room)) };
}

function toPageEnd(linear: Val): Val {
  return linear
    .and(PAGE - 1)
    .neg()
    .add(PAGE);
}

/** Leaves misaligned elements to the ordinary way where their alignment may have to be checked (SDM Vol. 3A 6.15, #AC). */
function checkAlignment(x: Env, bytes: number, ...linears: readonly Val[]): void {
  if (bytes === 1) return;
  const low = linears.reduce((all, linear) => all.or(linear)).wrap();
  noneIf(
    x,
    x
      .get(RFLAGS)
      .and(FLAG.AC)
      .ne(0)
      .and(x.get(CPL).eq(3))
      .and(low.and(bytes - 1).ne(0)),
  );
}

/** Host addresses have the type that guest RAM is addressed with. */
function ramAddress(x: Env, host: Val): Val {
  return x.ram.addressType === "i64" ? host.zx() : host;
}

function noneIf(x: Env, condition: Val): void {
  x.c.if(condition, () => x.done(0));
}

/** (segment, address size, elements wanted) -> elements moved. */
function moveHelper(bits: Bits): Helper {
  const bytes = bits / 8;
  const log = Math.log2(bytes);
  return helper(`moveBulk${bits}`, ["i32", "i32", "i64"], ["i64"], (x, segment, size, wanted) => {
    const { c } = x;
    noneIf(x, x.get(RFLAGS).and(FLAG.DF));
    const mask = c.let(addressMask(size));
    const from = indexRegister(x, GPR.RSI, mask);
    const to = indexRegister(x, GPR.RDI, mask);
    const source = stretch(x, segment, from, mask, 0);
    const destination = stretch(x, SREG.ES, to, mask, 1);
    const asked = least(x, wanted, i64(PAGE));
    const most = least(x, least(x, source.bytes, destination.bytes), asked.shl(log));
    const whole = c.let(most.wrap().and(-bytes));
    noneIf(x, whole.eqz());
    checkAlignment(x, bytes, source.linear, destination.linear);
    const read = x.call(hostAddress, source.linear, 0);
    noneIf(x, read.ltS(0));
    const written = x.call(hostAddress, destination.linear, 1);
    noneIf(x, written.ltS(0));
    // A destination that begins within the source repeats what was written: copy no further than up to there, or one element.
    const ahead = c.let(written.sub(read));
    const count = c.local("i32", whole);
    c.if(ahead.ne(0).and(ahead.ltU(whole)), () => {
      c.set(count, ahead.and(-bytes));
      c.if(count.eqz(), () => c.set(count, bytes));
    });
    x.c.memoryCopy(x.ram, ramAddress(x, written), x.ram, ramAddress(x, read), ramAddress(x, count));
    setIndexRegister(x, GPR.RSI, size, from.add(count.zx()));
    setIndexRegister(x, GPR.RDI, size, to.add(count.zx()));
    x.done(count.shrU(log).zx());
  });
}

const ONES: { readonly [bits in Bits]: bigint } = {
  8: 0x0101010101010101n,
  16: 0x0001000100010001n,
  32: 0x0000000100000001n,
  64: 1n,
};

/** (address size, elements wanted) -> elements stored from the accumulator. */
function storeHelper(bits: Bits): Helper {
  const bytes = bits / 8;
  const log = Math.log2(bytes);
  return helper(`storeBulk${bits}`, ["i32", "i64"], ["i64"], (x, size, wanted) => {
    const { c } = x;
    noneIf(x, x.get(RFLAGS).and(FLAG.DF));
    const mask = c.let(addressMask(size));
    const to = indexRegister(x, GPR.RDI, mask);
    const destination = stretch(x, SREG.ES, to, mask, 1);
    const asked = least(x, wanted, i64(PAGE));
    const count = c.let(least(x, destination.bytes, asked.shl(log)).wrap().and(-bytes));
    noneIf(x, count.eqz());
    checkAlignment(x, bytes, destination.linear);
    const written = x.call(hostAddress, destination.linear, 1);
    noneIf(x, written.ltS(0));
    const pattern = c.let(x.gpr(GPR.RAX, bits).zx().mul(ONES[bits]));
    c.if(
      pattern.eq(pattern.and(0xff).mul(ONES[8])),
      () => c.memoryFill(x.ram, ramAddress(x, written), pattern.wrap().and(0xff), ramAddress(x, count)),
      () => {
        const at = c.local("i32", written);
        const end = c.let(written.add(count));
        c.loop((head) => {
          c.store(x.ram, bytes, ramAddress(x, at), pattern);
          c.set(at, at.add(bytes));
          c.brIf(head, at.ltU(end));
        });
      },
    );
    setIndexRegister(x, GPR.RDI, size, to.add(count.zx()));
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
