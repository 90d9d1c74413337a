// The slow paths of data accesses: TLB misses, unaligned and page-crossing accesses, alignment checking, MMIO, and stores into pages
// that hold translated code. Called by what `EnvBase.load` and `store` emit.

import type { Bits, Env } from "../isa/semantics.ts";
import { CPL, CR0, CR0_BIT, FLAG, PENDING_ERROR, PENDING_VECTOR, RFLAGS, VECTOR } from "../isa/state.ts";
import type { Code } from "../wasm/code.ts";
import type { Memory } from "../wasm/memory.ts";
import type { FuncRef, ModuleBuilder } from "../wasm/module.ts";
import { i32, laneOp, op, type Val } from "../wasm/value.ts";
import { breakpointsEnabled, emitDataBreakpoints } from "./breakpoints.ts";
import { isClosed } from "./code-pages.ts";
import { bothOpen, crossesPage, emitReach, gather, scatter, secondPage } from "./crossing.ts";
import { valueType } from "./env.ts";
import { CROSSING, VAR } from "./layout.ts";
import { type PagingFuncs, WALK } from "./paging.ts";
import { tableFor } from "./tlb.ts";

export type Width = Bits | 128;
export const WIDTHS: readonly Width[] = [8, 16, 32, 64, 128];

/** Access codes as `ACCESS_CODE` in env.ts numbers them. */
const STACK = 1;
const SYSTEM = 2;

/** A value of a width, zero-extended to the type that it has as an operand. */
export function loadFrom(memory: Memory, width: Width, at: Val): Val {
  switch (width) {
    case 8:
      return memory.ld8u(at);
    case 16:
      return memory.ld16u(at);
    case 32:
      return memory.ld32(at);
    case 64:
      return memory.ld64(at);
    case 128:
      return memory.ldv128(at);
  }
}

export interface HostMemoryFuncs {
  /** (gpa low, gpa high, bytes 1, 2, 4) -> value; (..., value). */
  readonly mmioRead: FuncRef;
  readonly mmioWrite: FuncRef;
}

/** Checks before an access, for whoever makes accesses of another kind (src/cpu/locked-access.ts). */
export interface AccessChecks {
  check(c: Code, x: Env, linear: Val, access: Val, bytes: number): void;
  /** Notes data breakpoints. */
  watch(c: Code, x: Env, linear: Val, bytes: number, access: Val, write: boolean): void;
  /** WALK bits of an access. */
  walkBits(c: Code, x: Env, access: Val, write: boolean): Val;
}

export interface AccessFuncs {
  readonly slowLoad: ReadonlyMap<Width, FuncRef>;
  readonly slowStore: ReadonlyMap<Width, FuncRef>;
  readonly probeWrite: FuncRef;
  readonly hostAddress: FuncRef;
  readonly checks: AccessChecks;
}

export function emitMemoryAccess(
  m: ModuleBuilder,
  env: (c: Code) => Env,
  paging: PagingFuncs,
  host: HostMemoryFuncs,
  invalidateRange: FuncRef,
): AccessFuncs {
  const raise = (c: Code, x: Env, vector: Val | number, error: Val | number): void => {
    x.put(PENDING_VECTOR, vector);
    x.put(PENDING_ERROR, error);
    c.ret(1, ...c.type.results.slice(1).map(() => (c.type.results.includes("v128") ? zeroVector() : 0)));
  };
  const raiseNotCanonical = (c: Code, x: Env, access: Val): void => {
    c.st32(x.cpu, 0, 1, VAR.NOT_CANONICAL);
    raise(c, x, access.eq(STACK).eqz().add(VECTOR.SS), 0);
  };
  const zeroVector = (): Val => op("i32x4.splat", 0);

  const canonical = (linear: Val): Val => linear.shl(16).shrS(16).eq(linear);

  /** WALK bits of an access. */
  const walkBits = (c: Code, x: Env, access: Val, write: boolean): Val =>
    c.let(
      i32(write ? WALK.WRITE : 0).or(
        access
          .eq(SYSTEM)
          .shl(8)
          .or(access.ne(SYSTEM).and(x.get(CPL).eq(3)).shl(2)),
      ),
    );

  const checkAlignment = (c: Code, x: Env, linear: Val, access: Val, bytes: Val): void => {
    c.if(linear.wrap().and(bytes.sub(1)), () => {
      const checked = x
        .get(CPL)
        .eq(3)
        .and(x.get(CR0).and(CR0_BIT.AM).ne(0))
        .and(x.get(RFLAGS).and(FLAG.AC).ne(0))
        .and(access.ne(SYSTEM));
      c.if(checked, () => raise(c, x, VECTOR.AC, 0), undefined, "unlikely");
    });
  };

  /** Checks that come before translation: canonical address (SDM Vol. 1 3.3.7.1), alignment (SDM Vol. 3A 6.15, #AC). */
  const check = (c: Code, x: Env, linear: Val, access: Val, bytes: number): void => {
    c.if(
      canonical(linear)
        .and(canonical(linear.add(bytes - 1)))
        .eqz(),
      () => raiseNotCanonical(c, x, access),
      undefined,
      "unlikely",
    );
    if (bytes > 1) checkAlignment(c, x, linear, access, i32(bytes));
  };

  const dataBreakpoints = emitDataBreakpoints(m, env);
  const watch = (c: Code, x: Env, linear: Val, bytes: number, access: Val, write: boolean): void =>
    c.if(
      breakpointsEnabled(x).ne(0).and(access.ne(SYSTEM)),
      () => c.invoke(dataBreakpoints, linear, bytes, write ? 1 : 0),
      undefined,
      "unlikely",
    );

  const reach = emitReach(m, env, paging.translate);
  /** An access that crosses from one page of RAM into another: runs `both` with their host offsets. Others go byte by byte. */
  const crossRam = (
    c: Code,
    x: Env,
    linear: Val,
    access: Val,
    write: boolean,
    fault: () => void,
    both: (pages: readonly [Val, Val]) => void,
  ): void => {
    // The processor's own accesses have other rights than the TLB in use.
    c.if(access.ne(SYSTEM).and(breakpointsEnabled(x).eqz()), () => {
      const bits = walkBits(c, x, access, write);
      const [firstStatus, first] = c.callMany(reach, [linear, bits]);
      c.if(firstStatus.eq(1), fault);
      const [secondStatus, second] = c.callMany(reach, [secondPage(linear), bits]);
      c.if(secondStatus.eq(1), fault);
      c.if(firstStatus.or(secondStatus).eqz(), () => both([first, second]));
    });
  };

  /** An access within a page that is in the TLB, unaligned or by the processor itself: runs `hit` with the host offset. */
  const tryTlb = (c: Code, x: Env, linear: Val, access: Val, write: boolean, hit: (host: Val) => void): void => {
    const table = tableFor(x.cpu, access.eq(SYSTEM), write);
    const slot = linear.shrU(9).wrap().and(x.cpu.ld32(0, VAR.TLB_INDEX_MASK)).add(table);
    const found = c.let(x.cpu.ld64(slot).xor(linear));
    c.if(found.and(x.cpu.ld64(0, VAR.TLB_MASK)).eqz(), () => hit(found.wrap()));
  };

  const halves = (x: Env): [Val, Val] => [x.cpu.ld32(0, VAR.MMIO_GPA), x.cpu.ld32(0, VAR.MMIO_GPA + 4)];

  const slowLoad = new Map<Width, FuncRef>();
  const slowStore = new Map<Width, FuncRef>();
  for (const width of WIDTHS) {
    const type = width === 128 ? "v128" : valueType(width);
    slowLoad.set(width, m.declare(`slowLoad${width}`, ["i64", "i32"], ["i32", type]));
    slowStore.set(width, m.declare(`slowStore${width}`, ["i64", type, "i32"], ["i32"]));
  }

  const probeWrite = m.func("probeWrite", ["i64", "i32", "i32"], ["i32"], (c) => {
    const x = env(c);
    const [linear, bytes, access] = c.params;
    const last = c.let(linear.add(bytes.sub(1).zx()));
    c.if(canonical(linear).and(canonical(last)).eqz(), () => raiseNotCanonical(c, x, access), undefined, "unlikely");
    checkAlignment(c, x, linear, access, bytes);
    c.if(linear.xor(last).and(-4096n).eqz(), () => tryTlb(c, x, linear, access, true, () => c.ret(0)));
    const bits = walkBits(c, x, access, true);
    const [first] = c.callMany(paging.translate, [linear, bits]);
    c.if(first.eq(1), () => c.ret(1));
    c.if(linear.xor(last).and(-4096n).ne(0n), () => {
      const [second] = c.callMany(paging.translate, [last.and(-4096n), bits]);
      c.if(second.eq(1), () => c.ret(1));
    });
    c.results([0]);
  });

  for (const width of WIDTHS) {
    const bytes = width / 8;
    const load = slowLoad.get(width) as FuncRef;
    m.define(load, (c) => {
      const x = env(c);
      const [linear, access] = c.params;
      const nothing = (): Val | number => (width === 128 ? zeroVector() : 0);
      check(c, x, linear, access, bytes);
      watch(c, x, linear, bytes, access, false);
      if (bytes > 1) {
        c.if(crossesPage(linear, bytes), () => {
          // Faults name the first byte of the second page.
          crossRam(
            c,
            x,
            linear,
            access,
            false,
            () => c.ret(1, nothing()),
            (pages) => {
              gather(x, linear, bytes, pages);
              c.ret(0, loadFrom(x.cpu, width, i32(CROSSING)));
            },
          );
          if (width === 128) {
            const [lowStatus, low] = c.callMany(slowLoad.get(64) as FuncRef, [linear, access]);
            c.if(lowStatus, () => c.ret(1, nothing()));
            const [highStatus, high] = c.callMany(slowLoad.get(64) as FuncRef, [linear.add(8), access]);
            c.if(highStatus, () => c.ret(1, nothing()));
            c.ret(0, laneOp("i64x2.replace_lane", [1], op("i64x2.splat", low), high));
            return;
          }
          const wide = valueType(width);
          const value = c.local(wide, 0);
          const at = c.local("i32", 0);
          c.loop((head) => {
            const [status, byte] = c.callMany(slowLoad.get(8) as FuncRef, [linear.add(at.zx()), access]);
            c.if(status, () => c.ret(1, 0));
            const shift = at.shl(3);
            c.set(value, value.or(wide === "i64" ? byte.zx().shl(shift.zx()) : byte.shl(shift)));
            c.set(at, at.add(1));
            c.brIf(head, at.ltU(bytes));
          });
          c.ret(0, value);
        });
      }
      const fromRam = (at: Val): void => c.ret(0, loadFrom(x.ram, width, at));
      if (bytes > 1) tryTlb(c, x, linear, access, false, fromRam);
      const [status, at] = c.callMany(paging.translate, [linear, walkBits(c, x, access, false)]);
      c.if(status.eq(1), () => c.ret(1, nothing()));
      c.if(status.eqz(), () => fromRam(at));
      const [low, high] = halves(x).map((half) => c.let(half));
      const read = (offset: number, size: number): Val => c.call(host.mmioRead, low.add(offset), high, size);
      const quad = (offset: number): Val => {
        const first = read(offset, 4);
        return first.zx().or(
          read(offset + 4, 4)
            .zx()
            .shl(32),
        );
      };
      if (width === 128) {
        const first = c.let(quad(0));
        c.ret(0, laneOp("i64x2.replace_lane", [1], op("i64x2.splat", first), quad(8)));
      } else c.ret(0, width === 64 ? quad(0) : read(0, bytes));
      c.unreachable();
    });

    const store = slowStore.get(width) as FuncRef;
    m.define(store, (c) => {
      const x = env(c);
      const [linear, value, access] = c.params;
      check(c, x, linear, access, bytes);
      watch(c, x, linear, bytes, access, true);
      if (bytes > 1) {
        c.if(crossesPage(linear, bytes), () => {
          crossRam(
            c,
            x,
            linear,
            access,
            true,
            () => c.ret(1),
            (pages) =>
              c.if(bothOpen(x, pages), () => {
                c.store(x.cpu, bytes, i32(CROSSING), value);
                scatter(x, linear, bytes, pages);
                c.ret(0);
              }),
          );
          c.if(c.call(probeWrite, linear, bytes, access), () => c.ret(1));
          if (width === 128) {
            c.if(c.call(slowStore.get(64) as FuncRef, linear, laneOp("i64x2.extract_lane", [0], value), access), () =>
              c.ret(1),
            );
            c.ret(
              c.call(slowStore.get(64) as FuncRef, linear.add(8), laneOp("i64x2.extract_lane", [1], value), access),
            );
            return;
          }
          const at = c.local("i32", 0);
          c.loop((head) => {
            const shift = at.shl(3);
            const byte = width === 64 ? value.shrU(shift.zx()).wrap() : value.shrU(shift);
            c.if(c.call(slowStore.get(8) as FuncRef, linear.add(at.zx()), byte.and(0xff), access), () => c.ret(1));
            c.set(at, at.add(1));
            c.brIf(head, at.ltU(bytes));
          });
          c.ret(0);
        });
      }
      if (bytes > 1) {
        // A page in the write table is not sealed.
        tryTlb(c, x, linear, access, true, (at) => {
          c.store(x.ram, bytes, at, value);
          c.ret(0);
        });
      }
      const [status, at] = c.callMany(paging.translate, [linear, walkBits(c, x, access, true)]);
      c.if(status.eq(1), () => c.ret(1));
      c.if(status.eqz(), () => {
        c.store(x.ram, bytes, at, value);
        c.if(isClosed(x, at), () => c.invoke(invalidateRange, at, bytes));
        c.ret(0);
      });
      const [low, high] = halves(x).map((half) => c.let(half));
      const write = (offset: number, size: number, part: Val): void =>
        c.invoke(host.mmioWrite, low.add(offset), high, size, part);
      if (width === 128) {
        for (let lane = 0; lane < 4; lane++) write(lane * 4, 4, laneOp("i32x4.extract_lane", [lane], value));
      } else if (width === 64) {
        write(0, 4, value.wrap());
        write(4, 4, value.shrU(32).wrap());
      } else write(0, bytes, value);
      c.ret(0);
      c.unreachable();
    });
  }

  const hostAddress = m.func("hostAddress", ["i64", "i32"], ["i32"], (c) => {
    const x = env(c);
    const [linear, write] = c.params;
    const { cpu } = x;
    c.if(canonical(linear).eqz().or(breakpointsEnabled(x)), () => c.ret(-1), undefined, "unlikely");
    const slot = c.let(linear.shrU(9).wrap().and(cpu.ld32(0, VAR.TLB_INDEX_MASK)));
    const mask = c.let(cpu.ld64(0, VAR.TLB_MASK));
    const lookup = (base: number): Val => cpu.ld64(slot.add(cpu.ld32(0, base))).xor(linear);
    const hit = c.local("i64");
    c.if(
      write,
      () => c.set(hit, lookup(VAR.TLB_WRITE)),
      () => c.set(hit, lookup(VAR.TLB_READ)),
    );
    c.if(hit.and(mask).eqz(), () => c.ret(hit.wrap()), undefined, "likely");
    // A probe that fails changes nothing; one that succeeds is repeated as the access that it announces, which fills the TLB.
    const user = x.get(CPL).eq(3).shl(2);
    const bits = c.let(write.ne(0).shl(1).or(user));
    const [status] = c.callMany(paging.walk, [linear, bits.or(WALK.PROBE)]);
    c.if(status, () => c.ret(-1));
    const [filled, at] = c.callMany(paging.translate, [linear, bits]);
    c.if(filled.ne(0), () => c.ret(-1));
    c.if(write.ne(0).and(isClosed(x, at).ne(0)), () => c.ret(-1));
    c.results([at]);
  });

  return { slowLoad, slowStore, probeWrite, hostAddress, checks: { check, watch, walkBits } };
}
