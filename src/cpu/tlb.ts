// The TLB: six address spaces at once by PCID (SDM Vol. 3A 4.10), global pages, and what is dropped when (SDM Vol. 3A 4.10.4). The jump cache
// is a translation of addresses too: its entries are valid with a generation, one for the lower half of each address space and one for the
// upper half of all, where kernels have global pages.
//
// The user's tables exist once for each address space. The supervisor's exist once: of what is in them a change of the address space
// drops all that is not global, which for most kernels is what little they access of the user's memory.

import { flushScope } from "../isa/helper.ts";
import type { Env } from "../isa/semantics.ts";
import { CPL, CR3, CR4, CR4_BIT } from "../isa/state.ts";
import type { Code } from "../wasm/code.ts";
import type { FuncRef, ModuleBuilder } from "../wasm/module.ts";
import { i32, type Operand, select, type Val } from "../wasm/value.ts";
import {
  FETCHED_PAGES,
  FETCHED_PAGES_BITS,
  HUGE_PAGES,
  JUMP_CACHE,
  JUMP_CACHE_ENTRIES,
  LARGE_PAGES,
  PAGE_MAP_BITS,
  SPACE,
  SPACE_BASE,
  SPACE_LISTS,
  SPACES,
  TLB_BASE,
  TLB_LIST,
  TLB_LIST_ENTRIES,
  TLB_LIST_GLOBAL,
  TLB_SETS,
  TLB_TABLE_SIZE,
  VAR,
  WRITTEN_PAGES,
} from "./layout.ts";

export interface TlbFuncs {
  /** (table, linear, host, global) */
  readonly fill: FuncRef;
  /** (scope as `flushScope`) */
  readonly flushTlb: FuncRef;
  /** Empties all tables from any contents; needed once before the first access. */
  readonly resetTlb: FuncRef;
  /** (linear): the page in all address spaces, global or not. */
  readonly flushPage: FuncRef;
  /** (PCID, 1 to keep what the TLB holds of it): an address space that CR3 now names. */
  readonly changeSpace: FuncRef;
  /** (PCID): all of an address space that is not global. */
  readonly flushSpace: FuncRef;
  /** (host page offset): the page now holds code; no write entry maps it any more. */
  readonly protectPage: FuncRef;
  /** Recomputes VAR.JUMP_TAG. */
  readonly retag: FuncRef;
}

/** Pages by linear address, hashed to bits. */
export interface PageMap {
  readonly at: number;
  /** log2 of the bytes that a bit stands for. */
  readonly log: number;
  readonly bits: number;
}

/** Where parts of pages of 2 and 4 MiB, and of 1 GiB, may be in the TLB or the jump cache, and where code that the jump cache may hold. */
export const PAGE_MAPS = {
  LARGE: { at: LARGE_PAGES, log: 22, bits: PAGE_MAP_BITS },
  HUGE: { at: HUGE_PAGES, log: 30, bits: PAGE_MAP_BITS },
  FETCHED: { at: FETCHED_PAGES, log: 12, bits: FETCHED_PAGES_BITS },
} as const satisfies { [name: string]: PageMap };

function bitOf(map: PageMap, linear: Val): { at: Val; bit: Val } {
  const page = linear
    .shrU(map.log)
    .wrap()
    .and(map.bits - 1);
  return { at: page.shrU(3), bit: i32(1).shl(page.and(7)) };
}

export function markPage(x: Env, map: PageMap, linear: Val): void {
  const { at, bit } = bitOf(map, linear);
  const place = x.c.let(at);
  x.c.st8(x.cpu, place, x.cpu.ld8u(place, map.at).or(bit), map.at);
}

function isMarked(x: Env, map: PageMap, linear: Val): Val {
  const { at, bit } = bitOf(map, linear);
  return x.cpu.ld8u(at, map.at).and(bit);
}

/**
 * Address of the table that an access goes by: the one in use or, where it is the processor's own (`implicit`, not zero), the supervisor's. Such
 * accesses have the supervisor's rights at any CPL, and RFLAGS.AC overrides nothing for them (SDM Vol. 3A 4.6.1).
 */
export function tableFor(cpu: Env["cpu"], implicit: Val, write: boolean): Val {
  const own = TLB_BASE + (2 * TLB_SETS.SUPERVISOR + (write ? 1 : 0)) * TLB_TABLE_SIZE;
  return select(implicit, i32(own), cpu.ld32(0, write ? VAR.TLB_WRITE : VAR.TLB_READ));
}

/** Offset of the jump cache's entry for a linear address. */
export function jumpCacheSlot(linear: Val): Val {
  return linear
    .wrap()
    .xor(linear.shrU(14).wrap())
    .and(JUMP_CACHE_ENTRIES - 1)
    .shl(4);
}

/** The tag that a jump cache entry of a linear address is valid with. */
export function jumpTag(cpu: Env["cpu"], linear: Val): Val {
  return cpu.ld32(linear.shrU(63).wrap().shl(2), VAR.JUMP_TAG);
}

const GENERATION_MASK = 0xfffffff;
/** Tables that all address spaces share, in front of the user's. */
const SHARED_TABLES = 2 * TLB_SETS.USER;

export function emitTlb(m: ModuleBuilder, env: (c: Code) => Env): TlbFuncs {
  const spaceAt = (number: Val): Val => number.mul(SPACE.SIZE).add(SPACE_BASE);
  const isUpper = (linear: Val): Val => linear.ltS(0n);

  const retag = m.func("retag", [], [], (c) => {
    const x = env(c);
    const { cpu } = x;
    const mode = c.let(x.get(CPL).eq(3).shl(3).or(cpu.ld32(0, VAR.CODE_KEY)));
    const generation = cpu.ld32(spaceAt(cpu.ld32(0, VAR.SPACE)), SPACE.GENERATION);
    c.st32(cpu, 0, generation.shl(4).or(mode), VAR.JUMP_TAG);
    c.st32(cpu, 0, cpu.ld32(0, VAR.HIGH_GENERATION).shl(4).or(mode), VAR.JUMP_TAG + 4);
  });

  /** A generation that no jump cache entry has. */
  const newGeneration = m.func("newGeneration", [], ["i32"], (c) => {
    const x = env(c);
    const { cpu } = x;
    c.if(
      cpu.ld32(0, VAR.GENERATION).geU(GENERATION_MASK - 1),
      () => {
        // Numbers begin anew, for all that have one.
        c.memoryFill(cpu, JUMP_CACHE, 0xff, JUMP_CACHE_ENTRIES * 16);
        for (let n = 0; n < SPACES; n++) c.st32(cpu, 0, n + 1, SPACE_BASE + n * SPACE.SIZE + SPACE.GENERATION);
        c.st32(cpu, 0, SPACES + 1, VAR.HIGH_GENERATION);
        c.st32(cpu, 0, SPACES + 1, VAR.GENERATION);
        // What regions know of their pages is told from what they knew by this as well.
        c.st32(cpu, 0, cpu.ld32(0, VAR.COUNT_INVALIDATED).add(1), VAR.COUNT_INVALIDATED);
      },
      undefined,
      "unlikely",
    );
    const generation = c.let(cpu.ld32(0, VAR.GENERATION).add(1));
    c.st32(cpu, 0, generation, VAR.GENERATION);
    c.results([generation]);
  });
  const renew = (x: Env, at: Val | number, offset: number): void => {
    const generation = x.c.call(newGeneration);
    x.c.st32(x.cpu, at, generation, offset);
  };

  /** What an empty slot holds: it matches one non-canonical address only, and sends that to a page of its own (VAR.TLB_EMPTY). */
  const emptyEntry = (x: Env, slot: Val): Val =>
    slot
      .sub(TLB_BASE)
      .and(TLB_TABLE_SIZE - 1)
      .shl(9)
      .zx()
      .xor(x.cpu.ld64(0, VAR.TLB_EMPTY));

  /** Empties `count` tables from any contents: the first one. */
  const resetTables = (c: Code, x: Env, first: Val | number, count: number): void => {
    const offset = c.local("i32", 0);
    const base = c.let(i32(TLB_BASE).add(i32(TLB_TABLE_SIZE).mul(first)));
    c.loop((head) => {
      const entry = c.let(emptyEntry(x, offset.add(TLB_BASE)));
      for (let n = 0; n < count; n++) c.st64(x.cpu, base.add(offset), entry, n * TLB_TABLE_SIZE);
      c.set(offset, offset.add(8));
      c.brIf(head, offset.leU(x.cpu.ld32(0, VAR.TLB_INDEX_MASK)));
    });
  };

  const resetTlb = m.func("resetTlb", [], [], (c) => {
    const x = env(c);
    const { cpu } = x;
    resetTables(c, x, 0, SHARED_TABLES + 2);
    c.st32(cpu, 0, 0, VAR.TLB_FILLED);
    c.st32(cpu, 0, 0, VAR.TLB_FILLED_GLOBAL);
    c.st32(cpu, 0, 0, VAR.SPACE);
    c.st32(cpu, 0, 1, VAR.SPACES_READY);
    for (let n = 0; n < SPACES; n++) {
      c.st32(cpu, 0, n === 0 ? 0 : -1, SPACE_BASE + n * SPACE.SIZE + SPACE.PCID);
      c.st32(cpu, 0, 0, SPACE_BASE + n * SPACE.SIZE + SPACE.FILLED);
      renew(x, 0, SPACE_BASE + n * SPACE.SIZE + SPACE.GENERATION);
    }
    renew(x, 0, VAR.HIGH_GENERATION);
    c.invoke(retag);
  });

  const clearList = (c: Code, x: Env, list: Operand, at: Val | number, count: number): void => {
    const place = c.local("i32", list);
    const end = c.let(place.add(x.cpu.ld32(at, count).shl(2)));
    c.loop((head) => {
      c.if(place.ltU(end), () => {
        const slot = c.let(x.cpu.ld32(place));
        c.st64(x.cpu, slot, emptyEntry(x, slot));
        c.set(place, place.add(4));
        c.br(head);
      });
    });
    c.st32(x.cpu, at, 0, count);
  };
  const listOf = (number: Val): Val => number.mul(TLB_LIST_ENTRIES * 4).add(SPACE_LISTS);

  /** (number): empties the user's tables of an address space. */
  const emptySpace = m.func("emptySpace", ["i32"], [], (c) => {
    const x = env(c);
    const [number] = c.params;
    const at = c.let(spaceAt(number));
    clearList(c, x, listOf(number), at, SPACE.FILLED);
    renew(x, at, SPACE.GENERATION);
  });

  /** Drops what is not global in the tables that all address spaces share. */
  const emptyShared = m.func("emptyShared", [], [], (c) => {
    const x = env(c);
    clearList(c, x, TLB_LIST, 0, VAR.TLB_FILLED);
    c.if(x.cpu.ld32(0, VAR.HIGH_LOCAL), () => {
      c.st32(x.cpu, 0, 0, VAR.HIGH_LOCAL);
      renew(x, 0, VAR.HIGH_GENERATION);
    });
  });

  const count = (x: Env): void =>
    x.c.st32(x.cpu, 0, x.cpu.ld32(0, VAR.COUNT_TLB_FLUSHES).add(1), VAR.COUNT_TLB_FLUSHES);
  const forEachReady = (c: Code, x: Env, body: (number: Val) => void): void => {
    const number = c.local("i32", 0);
    c.loop((head) => {
      body(number);
      c.set(number, number.add(1));
      c.brIf(head, number.ltU(x.cpu.ld32(0, VAR.SPACES_READY)));
    });
  };
  const currentPcid = (x: Env): Val => select(x.get(CR4).and(CR4_BIT.PCIDE), x.get(CR3).wrap().and(0xfff), i32(0));

  const forgetDevice = (x: Env): void => x.c.st32(x.cpu, 0, 0, VAR.DEVICE_TABLE);

  const flushTlb = m.func("flushTlb", ["i32"], [], (c) => {
    const x = env(c);
    const { cpu } = x;
    const [scope] = c.params;
    count(x);
    forgetDevice(x);
    c.invoke(emptyShared);
    c.if(
      scope.eq(flushScope.SPACE),
      () => c.invoke(emptySpace, cpu.ld32(0, VAR.SPACE)),
      () =>
        forEachReady(c, x, (number) => {
          c.invoke(emptySpace, number);
          c.st32(cpu, spaceAt(number), -1, SPACE.PCID);
        }),
    );
    c.st32(cpu, spaceAt(cpu.ld32(0, VAR.SPACE)), currentPcid(x), SPACE.PCID);
    c.if(scope.eq(flushScope.ALL), () => {
      clearList(c, x, TLB_LIST_GLOBAL, 0, VAR.TLB_FILLED_GLOBAL);
      renew(x, 0, VAR.HIGH_GENERATION);
      for (const map of Object.values(PAGE_MAPS)) c.memoryFill(cpu, map.at, 0, map.bits / 8);
    });
    c.invoke(retag);
  });

  const changeSpace = m.func("changeSpace", ["i32", "i32"], [], (c) => {
    const x = env(c);
    const { cpu } = x;
    const [pcid, keep] = c.params;
    forgetDevice(x);
    const present = c.let(cpu.ld32(0, VAR.SPACE));
    const chosen = c.local("i32", -1);
    const oldest = c.local("i32", 0);
    const number = c.local("i32", 0);
    c.loop((head) => {
      const at = c.let(spaceAt(number));
      c.if(cpu.ld32(at, SPACE.PCID).eq(pcid), () => c.set(chosen, number));
      const age = cpu.ld32(at, SPACE.USED).sub(cpu.ld32(spaceAt(oldest), SPACE.USED));
      c.if(age.ltS(0).or(oldest.eq(present)), () => c.set(oldest, number));
      c.set(number, number.add(1));
      c.brIf(head, number.ltU(cpu.ld32(0, VAR.SPACES_READY)));
    });
    c.if(chosen.ltS(0), () => {
      c.if(
        number.ltU(SPACES),
        () => {
          // Its tables have never been used.
          resetTables(c, x, number.shl(1).add(SHARED_TABLES), 2);
          c.st32(cpu, 0, number.add(1), VAR.SPACES_READY);
          c.set(chosen, number);
        },
        () => {
          c.set(chosen, oldest);
          c.invoke(emptySpace, chosen);
        },
      );
      c.st32(cpu, spaceAt(chosen), pcid, SPACE.PCID);
    });
    c.if(keep.eqz(), () => {
      count(x);
      c.invoke(emptySpace, chosen);
    });
    c.if(chosen.ne(present).or(keep.eqz()), () => c.invoke(emptyShared));
    const clock = c.let(cpu.ld32(0, VAR.SPACE_CLOCK).add(1));
    c.st32(cpu, 0, clock, VAR.SPACE_CLOCK);
    c.st32(cpu, spaceAt(chosen), clock, SPACE.USED);
    c.st32(cpu, 0, chosen, VAR.SPACE);
    c.invoke(retag);
  });

  const flushSpace = m.func("flushSpace", ["i32"], [], (c) => {
    const x = env(c);
    const { cpu } = x;
    const [pcid] = c.params;
    c.if(pcid.eq(currentPcid(x)), () => {
      c.invoke(flushTlb, flushScope.SPACE);
      c.ret();
    });
    forEachReady(c, x, (number) => {
      c.if(cpu.ld32(spaceAt(number), SPACE.PCID).eq(pcid), () => c.invoke(emptySpace, number));
    });
  });

  const flushPage = m.func("flushPage", ["i64"], [], (c) => {
    const x = env(c);
    const { cpu } = x;
    const [linear] = c.params;
    forgetDevice(x);
    // All of a large page goes, whichever of its addresses is named (SDM Vol. 3A 4.10.4.1).
    c.if(isMarked(x, PAGE_MAPS.HUGE, linear), () => {
      c.invoke(flushTlb, flushScope.ALL);
      c.ret();
    });
    const page = c.local("i64", linear);
    const left = c.local("i32", 1);
    const fetched = c.local("i32", isMarked(x, PAGE_MAPS.FETCHED, linear));
    c.if(isMarked(x, PAGE_MAPS.LARGE, linear), () => {
      c.set(page, linear.and(-(1n << BigInt(PAGE_MAPS.LARGE.log))));
      c.set(left, 1 << (PAGE_MAPS.LARGE.log - 12));
      c.set(fetched, 1);
    });
    c.loop((head) => {
      const slot = c.let(page.shrU(9).wrap().and(cpu.ld32(0, VAR.TLB_INDEX_MASK)));
      const entry = c.let(emptyEntry(x, slot.add(TLB_BASE)));
      const dropFrom = (first: Val | number, tables: number): void => {
        for (let n = 0; n < tables; n++) c.st64(cpu, slot.add(first), entry, TLB_BASE + n * TLB_TABLE_SIZE);
      };
      dropFrom(0, SHARED_TABLES);
      forEachReady(c, x, (number) => dropFrom(number.shl(1).add(SHARED_TABLES).mul(TLB_TABLE_SIZE), 2));
      c.set(page, page.add(4096n));
      c.set(left, left.sub(1));
      c.brIf(head, left);
    });
    c.if(fetched, () => {
      c.if(
        isUpper(linear),
        () => renew(x, 0, VAR.HIGH_GENERATION),
        () => forEachReady(c, x, (number) => renew(x, spaceAt(number), SPACE.GENERATION)),
      );
      c.invoke(retag);
    });
  });

  const fill = m.func("fillTlb", ["i32", "i64", "i32", "i32"], [], (c) => {
    const x = env(c);
    const [table, linear, host, global] = c.params;
    const { cpu } = x;
    const slot = c.let(linear.shrU(9).wrap().and(cpu.ld32(0, VAR.TLB_INDEX_MASK)).add(table));
    const put = (list: Val | number, at: Val | number, filled: number): void => {
      c.if(cpu.ld32(at, filled).geU(TLB_LIST_ENTRIES), () => clearList(c, x, list, at, filled), undefined, "unlikely");
      const used = c.let(cpu.ld32(at, filled));
      c.st32(cpu, used.shl(2).add(list), slot);
      c.st32(cpu, at, used.add(1), filled);
    };
    c.if(
      table.geU(TLB_BASE + SHARED_TABLES * TLB_TABLE_SIZE),
      () => {
        const number = c.let(cpu.ld32(0, VAR.SPACE));
        put(c.let(listOf(number)), c.let(spaceAt(number)), SPACE.FILLED);
      },
      () =>
        c.if(
          global,
          () => put(TLB_LIST_GLOBAL, 0, VAR.TLB_FILLED_GLOBAL),
          () => put(TLB_LIST, 0, VAR.TLB_FILLED),
        ),
    );
    c.st64(cpu, slot, linear.and(-4096n).xor(host.and(-4096).zx()));
    c.if(table.sub(TLB_BASE).and(TLB_TABLE_SIZE), () => c.st8(cpu, host.shrU(12), 1, WRITTEN_PAGES));
  });

  const protectPage = m.func("protectPage", ["i32"], [], (c) => {
    const x = env(c);
    const [page] = c.params;
    const { cpu } = x;
    c.if(cpu.ld8u(page.shrU(12), WRITTEN_PAGES).eqz(), () => c.ret());
    c.st8(cpu, page.shrU(12), 0, WRITTEN_PAGES);
    const mask = c.let(
      i32(-1)
        .shrU(i32(32).sub(cpu.ld32(0, VAR.RAM_BITS)))
        .and(-4096),
    );
    const scan = (list: Val | number, at: Val | number, filled: number): void => {
      const place = c.local("i32", list);
      const end = c.let(place.add(cpu.ld32(at, filled).shl(2)));
      c.loop((head) => {
        c.if(place.ltU(end), () => {
          const slot = c.let(cpu.ld32(place));
          const offset = c.let(slot.sub(TLB_BASE));
          const isWrite = offset.and(TLB_TABLE_SIZE).ne(0);
          const index = offset.and(TLB_TABLE_SIZE - 1).shl(9);
          c.if(isWrite.and(cpu.ld32(slot).xor(index).xor(page).and(mask).eqz()), () =>
            c.st64(cpu, slot, emptyEntry(x, slot)),
          );
          c.set(place, place.add(4));
          c.br(head);
        });
      });
    };
    scan(TLB_LIST, 0, VAR.TLB_FILLED);
    scan(TLB_LIST_GLOBAL, 0, VAR.TLB_FILLED_GLOBAL);
    forEachReady(c, x, (number) => scan(c.let(listOf(number)), c.let(spaceAt(number)), SPACE.FILLED));
  });

  return { fill, flushTlb, resetTlb, flushPage, changeSpace, flushSpace, protectPage, retag };
}
