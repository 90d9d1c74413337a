// From linear to guest-physical to host addresses: the page walk in all paging modes (SDM Vol. 3A chapter 4), memory slots, and the
// filling of the TLB (tlb.ts). All of it is code of the engine module.

import type { Env } from "../isa/semantics.ts";
import {
  CR0,
  CR0_BIT,
  CR2,
  CR3,
  CR4,
  CR4_BIT,
  EFER,
  EFER_BIT,
  FLAG,
  MAXPHYADDR,
  PDPTE,
  PENDING_ERROR,
  PENDING_VECTOR,
  RFLAGS,
  VECTOR,
} from "../isa/state.ts";
import type { FuncRef, ModuleBuilder } from "../wasm/module.ts";
import { i32, i64, select, type Val } from "../wasm/value.ts";
import { breakpointsEnabled } from "./breakpoints.ts";
import { isClosed } from "./code-pages.ts";
import { SLOT_BASE, SLOT_SIZE, VAR } from "./layout.ts";
import { emitTlb, markPage, PAGE_MAPS, type TlbFuncs, tableFor } from "./tlb.ts";

/** What a walk is asked for, and what a fault's error code is built from (SDM Vol. 3A 4.7). */
export const WALK = {
  WRITE: 1 << 1,
  USER: 1 << 2,
  FETCH: 1 << 4,
  /** An access by the processor itself: SMAP holds whatever RFLAGS.AC says (SDM Vol. 3A 4.6.1). */
  IMPLICIT: 1 << 8,
  /** Report failure without raising and without touching the tables. */
  PROBE: 1 << 9,
} as const;

/** What a successful walk found out. */
const PAGE = { WRITABLE: 1, USER: 2, GLOBAL: 4, DIRTY: 8, LARGE: 16, HUGE: 32 } as const;

const ENTRY = { P: 1n, RW: 2n, US: 4n, A: 1n << 5n, D: 1n << 6n, PS: 1n << 7n, G: 1n << 8n, NX: 1n << 63n } as const;
const ADDRESS_MASK = ((1n << BigInt(MAXPHYADDR)) - 1n) & ~0xfffn;
const RESERVED_HIGH = ((1n << 52n) - 1n) & ~((1n << BigInt(MAXPHYADDR)) - 1n);

/** Fault bits of the error code. */
const CODE = { P: 1, RSVD: 1 << 3 } as const;

export interface PagingFuncs {
  /** (gpa) -> host offset of RAM or ROM, or -1. */
  readonly hostOf: FuncRef;
  /** (gpa) -> host offset of writable RAM, or -1. */
  readonly hostOfWrite: FuncRef;
  /** (linear, WALK bits) -> (status 0 or 1, gpa, PAGE bits). */
  readonly walk: FuncRef;
  /** (linear, WALK bits) -> (status, host). Status 0: RAM, in the TLB from now on; 1: fault raised; 2: no RAM, gpa in VAR.MMIO_GPA. */
  readonly translate: FuncRef;
  readonly tlb: TlbFuncs;
}

type MakeEnv = (c: import("../wasm/code.ts").Code) => Env;

export function emitPaging(m: ModuleBuilder, env: MakeEnv): PagingFuncs {
  const hostLookup = (name: string, writable: boolean): FuncRef =>
    m.func(name, ["i64"], ["i32"], (c) => {
      const x = env(c);
      const [gpa] = c.params;
      const { cpu } = x;
      c.if(
        gpa.sub(0x100000).ltU(cpu.ld32u64(0, VAR.LOW_RAM_END).sub(0x100000)),
        () => c.ret(gpa.wrap()),
        undefined,
        "likely",
      );
      const slot = c.local("i32", SLOT_BASE);
      const end = c.let(i32(SLOT_BASE).add(cpu.ld32(0, VAR.SLOT_COUNT).mul(SLOT_SIZE)));
      c.loop((head) => {
        c.if(slot.geU(end), () => c.ret(-1));
        c.if(gpa.geU(cpu.ld64(slot, 0)).and(gpa.ltU(cpu.ld64(slot, 8))), () => {
          if (writable) c.if(cpu.ld32(slot, 20).and(1).eqz(), () => c.ret(-1));
          c.ret(gpa.sub(cpu.ld64(slot, 0)).wrap().add(cpu.ld32(slot, 16)));
        });
        c.set(slot, slot.add(SLOT_SIZE));
        c.br(head);
      });
      c.unreachable();
    });
  const hostOf = hostLookup("hostOf", false);
  const hostOfWrite = hostLookup("hostOfWrite", true);

  const pageFault = m.func("pageFault", ["i64", "i32", "i32"], [], (c) => {
    const x = env(c);
    const [linear, access, code] = c.params;
    c.if(access.and(WALK.PROBE).eqz(), () => {
      x.put(CR2, linear);
      x.put(PENDING_VECTOR, VECTOR.PF);
      // I/D is reported only where no-execute or SMEP can make the difference.
      const nx = x.get(CR4).and(CR4_BIT.PAE).ne(0).and(x.get(EFER).and(EFER_BIT.NXE).ne(0));
      const reportFetch = nx.or(x.get(CR4).and(CR4_BIT.SMEP).ne(0));
      const shown = select(
        reportFetch,
        access.and(WALK.WRITE | WALK.USER | WALK.FETCH),
        access.and(WALK.WRITE | WALK.USER),
      );
      x.put(PENDING_ERROR, shown.or(code));
      c.st32(x.cpu, 0, x.cpu.ld32(0, VAR.COUNT_FAULTS).add(1), VAR.COUNT_FAULTS);
    });
  });

  const walk = m.declare("walk", ["i64", "i32"], ["i32", "i64", "i32"]);
  m.define(walk, (c) => {
    const x = env(c);
    const [linear, access] = c.params;
    const { cpu, ram } = x;
    c.st32(cpu, 0, cpu.ld32(0, VAR.COUNT_WALKS).add(1), VAR.COUNT_WALKS);
    const cr4 = c.let(x.get(CR4));
    c.if(x.get(CR0).and(CR0_BIT.PG).eqz(), () => {
      c.ret(0, linear.and(0xffffffffn), PAGE.WRITABLE | PAGE.USER | PAGE.DIRTY);
    });
    const fault = (code: Val | number): void => {
      c.invoke(pageFault, linear, access, code);
      c.ret(1, 0, 0);
    };
    const table = c.local("i64");
    const level = c.local("i32");
    const entry = c.local("i64");
    const entryHost = c.local("i32");
    const rights = c.local("i64", ENTRY.RW | ENTRY.US);
    const noExecute = c.local("i64", 0);
    const wide = c.let(cr4.and(CR4_BIT.PAE));
    // An all-ones read of what is no memory hits the reserved bits.
    const readEntry = (gpa: Val, bytes: 4 | 8): void => {
      c.set(entryHost, c.call(hostOf, gpa));
      c.if(
        entryHost.eq(-1),
        () => c.set(entry, -1n),
        () => c.set(entry, bytes === 8 ? ram.ld64(entryHost) : ram.ld32u64(entryHost)),
        "unlikely",
      );
    };
    // A locked access; where another processor has changed the entry since it was read, all is looked at again (SDM Vol. 3A 9.1.2.1, 4.8).
    const setBits = (bits: bigint | Val, bytes: 4 | 8): void => {
      c.if(access.and(WALK.PROBE).eqz().and(entryHost.ne(-1)), () => {
        const marked = c.let(entry.or(bits));
        const found =
          bytes === 8
            ? c.atomicCompareExchange(ram, 8, entryHost, entry, marked)
            : c.let(c.atomicCompareExchange(ram, 4, entryHost, entry.wrap(), marked.wrap()).zx());
        c.if(found.ne(entry), () => c.returnCall(walk, linear, access), undefined, "unlikely");
        c.set(entry, marked);
      });
    };
    const checkPresent = (): void => {
      c.if(entry.and(ENTRY.P).eqz(), () => fault(0), undefined, "unlikely");
    };
    const gpa = c.local("i64");

    /** Rights of the leaf against the access; then A and D, and the result. `size` is PAGE.LARGE, PAGE.HUGE or 0. */
    const finish = (bytes: 4 | 8, size: Val | number): void => {
      const user = c.let(rights.and(ENTRY.US).ne(0n));
      const writable = c.let(rights.and(ENTRY.RW).ne(0n));
      const wp = c.let(x.get(CR0).and(CR0_BIT.WP).ne(0));
      c.if(
        access.and(WALK.USER),
        () => {
          c.if(user.eqz(), () => fault(CODE.P), undefined, "unlikely");
          c.if(writable.eqz().and(access.and(WALK.WRITE).ne(0)), () => fault(CODE.P), undefined, "unlikely");
        },
        () => {
          c.if(writable.eqz().and(wp).and(access.and(WALK.WRITE).ne(0)), () => fault(CODE.P), undefined, "unlikely");
          c.if(user, () => {
            c.if(
              access.and(WALK.FETCH),
              () => {
                c.if(cr4.and(CR4_BIT.SMEP), () => fault(CODE.P), undefined, "unlikely");
              },
              () => {
                const overridden = x.get(RFLAGS).and(FLAG.AC).ne(0).and(access.and(WALK.IMPLICIT).eqz());
                c.if(cr4.and(CR4_BIT.SMAP).ne(0).and(overridden.eqz()), () => fault(CODE.P), undefined, "unlikely");
              },
            );
          });
        },
      );
      c.if(access.and(WALK.FETCH).ne(0).and(noExecute.ne(0n)), () => fault(CODE.P), undefined, "unlikely");
      const needed = c.let(select(access.and(WALK.WRITE), i64(ENTRY.A | ENTRY.D), i64(ENTRY.A)));
      c.if(entry.and(needed).ne(needed), () => setBits(needed, bytes));
      const mayWrite = select(access.and(WALK.USER), writable, writable.or(wp.eqz()));
      const global = entry.and(ENTRY.G).ne(0n).and(cr4.and(CR4_BIT.PGE).ne(0));
      const bits = mayWrite.and(1).or(user.shl(1)).or(global.shl(2)).or(entry.and(ENTRY.D).ne(0n).shl(3));
      c.ret(0, gpa, bits.or(size));
    };

    // 32-bit paging (SDM Vol. 3A 4.3)
    c.if(wide.eqz(), () => {
      readEntry(x.get(CR3).and(0xfffff000n).add(linear.bits(22, 10).shl(2)), 4);
      checkPresent();
      c.set(rights, rights.and(entry));
      c.if(entry.and(ENTRY.PS).ne(0n).and(cr4.and(CR4_BIT.PSE).ne(0)), () => {
        c.if(entry.and(1n << 21n).ne(0n), () => fault(CODE.P | CODE.RSVD), undefined, "unlikely");
        c.set(gpa, entry.and(0xffc00000n).or(entry.bits(13, 8).shl(32)).or(linear.and(0x3fffffn)));
        finish(4, PAGE.LARGE);
      });
      c.if(entry.and(ENTRY.A).eqz(), () => setBits(ENTRY.A, 4));
      readEntry(entry.and(0xfffff000n).add(linear.bits(12, 10).shl(2)), 4);
      checkPresent();
      c.set(rights, rights.and(entry));
      c.set(gpa, entry.and(0xfffff000n).or(linear.and(0xfffn)));
      finish(4, 0);
    });

    const reserved = c.let(select(x.get(EFER).and(EFER_BIT.NXE), i64(RESERVED_HIGH), i64(RESERVED_HIGH | ENTRY.NX)));
    c.if(
      x.get(EFER).and(EFER_BIT.LMA),
      () => {
        // 4-level paging (SDM Vol. 3A 4.5)
        c.set(table, x.get(CR3).and(ADDRESS_MASK));
        c.set(level, 3);
      },
      () => {
        // PAE paging (SDM Vol. 3A 4.4): the PDPTEs were checked when they were loaded.
        c.set(entry, cpu.ld64(linear.wrap().shrU(30).shl(3), PDPTE[0].offset));
        checkPresent();
        c.set(table, entry.and(ADDRESS_MASK));
        c.set(level, 1);
      },
    );
    const legacyReserved = c.let(select(x.get(EFER).and(EFER_BIT.LMA), i64(0), i64(0x7ff0000000000000n)));
    c.loop((head) => {
      const shift = c.let(level.mul(9).add(12));
      readEntry(table.add(linear.shrU(shift.zx()).and(0x1ffn).shl(3)), 8);
      checkPresent();
      c.if(entry.and(reserved.or(legacyReserved)).ne(0n), () => fault(CODE.P | CODE.RSVD), undefined, "unlikely");
      c.set(rights, rights.and(entry));
      c.set(noExecute, noExecute.or(entry.and(ENTRY.NX)));
      const large = entry.and(ENTRY.PS).ne(0n).and(level.ne(0));
      c.if(level.eqz().or(large), () => {
        const offsetMask = c.let(i64(1).shl(shift.zx()).sub(1));
        // Large pages: bits 13 up to the page size are reserved (bit 12 is PAT); a PML4E has no page size bit.
        c.if(
          level.eq(3).or(level.ne(0).and(entry.and(offsetMask).and(~0x1fffn).ne(0n))),
          () => fault(CODE.P | CODE.RSVD),
          undefined,
          "unlikely",
        );
        c.set(gpa, entry.and(ADDRESS_MASK).and(offsetMask.not()).or(linear.and(offsetMask)));
        finish(8, select(level.eq(2), i32(PAGE.HUGE), level.shl(Math.log2(PAGE.LARGE))));
      });
      c.if(entry.and(ENTRY.A).eqz(), () => setBits(ENTRY.A, 8));
      c.set(table, entry.and(ADDRESS_MASK));
      c.set(level, level.sub(1));
      c.br(head);
    });
    c.unreachable();
  });

  const tlb = emitTlb(m, env);

  const translate = m.func("translate", ["i64", "i32"], ["i32", "i32"], (c) => {
    const x = env(c);
    const [linear, access] = c.params;
    const { cpu } = x;
    const device = c.local("i64", -1n);
    c.if(access.and(WALK.PROBE | WALK.FETCH | WALK.IMPLICIT).eqz(), () => {
      c.set(device, linear.and(-4096n).or(access.zx()));
      c.if(
        cpu
          .ld64(0, VAR.DEVICE_PAGE)
          .eq(device)
          .and(cpu.ld32(0, VAR.DEVICE_TABLE).eq(cpu.ld32(0, VAR.TLB_READ))),
        () => {
          c.st64(cpu, 0, cpu.ld64(0, VAR.DEVICE_GPA).or(linear.and(0xfffn)), VAR.MMIO_GPA);
          c.ret(2, 0);
        },
      );
    });
    // Non-canonical addresses have no translation; the caller has raised for them.
    const [status, gpa, page] = c.callMany(walk, [linear, access]);
    c.if(status, () => c.ret(1, 0), undefined, "unlikely");
    const host = c.let(c.call(hostOf, gpa));
    const writableHost = c.let(c.call(hostOfWrite, gpa));
    c.if(
      host.eq(-1).or(access.and(WALK.WRITE).ne(0).and(writableHost.eq(-1))),
      () => {
        c.st64(cpu, 0, gpa, VAR.MMIO_GPA);
        c.if(device.ne(-1n), () => {
          c.st64(cpu, 0, device, VAR.DEVICE_PAGE);
          c.st64(cpu, 0, gpa.and(-4096n), VAR.DEVICE_GPA);
          c.st32(cpu, 0, cpu.ld32(0, VAR.TLB_READ), VAR.DEVICE_TABLE);
        });
        c.ret(2, 0);
      },
      undefined,
      "unlikely",
    );
    c.if(access.and(WALK.FETCH), () => {
      markPage(x, PAGE_MAPS.FETCHED, linear);
      c.if(page.and(PAGE.GLOBAL).eqz(), () => c.st32(cpu, 0, 1, VAR.FETCH_LOCAL));
      c.if(page.and(PAGE.LARGE), () => markPage(x, PAGE_MAPS.LARGE, linear));
      c.if(page.and(PAGE.HUGE), () => markPage(x, PAGE_MAPS.HUGE, linear));
    });
    c.if(
      access
        .and(WALK.PROBE | WALK.FETCH)
        .or(breakpointsEnabled(x))
        .eqz(),
      () => {
        const table = (write: boolean): Val => tableFor(cpu, access.and(WALK.IMPLICIT), write);
        const global = c.let(page.and(PAGE.GLOBAL));
        c.if(page.and(PAGE.LARGE), () => markPage(x, PAGE_MAPS.LARGE, linear));
        c.if(page.and(PAGE.HUGE), () => markPage(x, PAGE_MAPS.HUGE, linear));
        c.invoke(tlb.fill, table(false), linear, host, global);
        const open = isClosed(x, host).eqz();
        const both = PAGE.WRITABLE | PAGE.DIRTY;
        c.if(page.and(both).eq(both).or(access.and(WALK.WRITE).ne(0)).and(open).and(writableHost.ne(-1)), () =>
          c.invoke(tlb.fill, table(true), linear, host, global),
        );
      },
    );
    c.ret(0, host);
  });

  return { hostOf, hostOfWrite, walk, translate, tlb };
}
