// How far string instructions may go at once: the elements from where an operand lies to the end of its page, in the direction of DF.

import type { Local } from "../../wasm/code.ts";
import { i64, select, type Val } from "../../wasm/value.ts";
import { hostAddress } from "../helper.ts";
import { in64BitMode, indexRegister, linearAddress, segmentRoom, setIndexRegister } from "../segmentation.ts";
import type { Env } from "../semantics.ts";
import { CPL, FLAG, RFLAGS, SREG } from "../state.ts";

const PAGE = 4096;

/** Pages in one go, where they lie next to each other in RAM. */
const MOST_PAGES = 8;
/** Bytes in one go. */
export const MOST_BYTES = MOST_PAGES * PAGE;

export interface Stretch {
  /** Linear address of the first element, and how many lie between there and the end (or beginning) of the page, i64. */
  readonly linear: Local;
  readonly elements: Local;
  /** Of an element. */
  readonly bytes: number;
  /** Of the address size, and not zero where elements follow downwards. */
  readonly mask: Val;
  readonly backwards: Val;
  readonly write: number;
}

export function least(x: Env, a: Val, b: Val): Val {
  const first = x.c.let(a);
  const second = x.c.let(b);
  return x.c.let(select(first.ltU(second), first, second));
}

export function noneIf(x: Env, condition: Val): void {
  x.c.if(condition, () => x.done(0));
}

/** Not zero where elements follow downwards. */
export function isBackwards(x: Env): Val {
  return x.c.let(x.get(RFLAGS).and(FLAG.DF));
}

/** An operand at an index register, whose value masked to the address size is `offset`. */
export function stretch(
  x: Env,
  bytes: number,
  segment: Val | number,
  offset: Val,
  mask: Val,
  backwards: Val,
  write: number,
): Stretch {
  const { c } = x;
  const log = Math.log2(bytes);
  const linear = c.local("i64", offset);
  const elements = c.local("i64", 0);
  c.if(
    in64BitMode(x),
    () => {
      if (typeof segment !== "number") {
        c.if(segment.geU(SREG.FS), () => c.set(linear, x.call(linearAddress, segment, offset)));
      }
      const inPage = c.let(linear.and(PAGE - 1));
      c.if(
        backwards,
        () => {
          // An element that reaches into the next page goes alone, and so does what is left where the index register wraps.
          const below = c.let(least(x, inPage, offset).shrU(log).add(1));
          c.set(elements, select(inPage.gtU(PAGE - bytes), i64(0), below));
        },
        () => {
          const room = c.let(i64(PAGE).sub(inPage));
          c.set(elements, select(room.sub(1).gtU(mask.sub(offset)), i64(0), room.shrU(log)));
        },
      );
    },
    () => {
      noneIf(x, backwards);
      c.set(linear, x.call(linearAddress, segment, offset));
      const inPage = linear.and(PAGE - 1);
      const room = least(x, x.call(segmentRoom, segment, offset, write), i64(PAGE).sub(inPage));
      c.set(elements, select(room.sub(1).gtU(mask.sub(offset)), i64(0), room.shrU(log)));
    },
    "likely",
  );
  return { linear, elements, bytes, mask, backwards, write };
}

/** Leaves misaligned elements to the ordinary way where their alignment may have to be checked (SDM Vol. 3A 6.15, #AC). */
export function leaveChecked(x: Env, bytes: number, ...stretches: readonly Stretch[]): void {
  if (bytes === 1) return;
  const low = stretches
    .map(({ linear }): Val => linear)
    .reduce((all, linear) => all.or(linear))
    .wrap();
  const checked = x.get(RFLAGS).and(FLAG.AC).ne(0).and(x.get(CPL).eq(3));
  noneIf(x, checked.and(low.and(bytes - 1).ne(0)));
}

/** Host offset of the first element; none where it has no place in RAM that may be accessed so. */
export function hostOf(x: Env, { linear, write }: Stretch): Local {
  const host = x.call(hostAddress, linear, write);
  noneIf(x, host.ltS(0));
  return host;
}

/**
 * Takes in the pages behind a stretch, as long as their elements are wanted and they follow in RAM as they do in the linear address space; upwards
 * in 64-bit mode, where no segment ends.
 */
export function extend(x: Env, stretch: Stretch, host: Local, wanted: Val): void {
  const { linear, elements, bytes, mask, backwards, write } = stretch;
  const { c } = x;
  const log = Math.log2(bytes);
  const limit = c.let(wanted);
  c.if(elements.ltU(limit).and(in64BitMode(x)).and(mask.eq(-1n)).and(backwards.eqz()), () => {
    // Bytes from the first element to the end of the last page that is in.
    const room = c.local("i64", i64(PAGE).sub(linear.and(PAGE - 1)));
    c.loop((head) => {
      c.if(x.call(hostAddress, linear.add(room), write).eq(host.add(room.wrap())), () => {
        c.set(room, room.add(PAGE));
        c.set(elements, room.shrU(log));
        c.brIf(head, elements.ltU(limit));
      });
    });
  });
}

/** Host addresses have the type that guest RAM is addressed with. */
export function ramAddress(x: Env, host: Val): Val {
  return x.ram.addressType === "i64" ? host.zx() : host;
}

/** Moves an index register on by bytes (i64). */
export function moveIndex(x: Env, register: number, size: Val, mask: Val, backwards: Val, bytes: Val): void {
  const offset = indexRegister(x, register, mask);
  setIndexRegister(x, register, size, offset.add(select(backwards, i64(0).sub(bytes), bytes)));
}
