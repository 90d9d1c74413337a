// Blocks of decoded instructions: finding the block for RIP, the jump cache before it, links between blocks of a page, and their end when
// the bytes that they were decoded from change (docs/architecture.md, "Blocks").

import { EXIT } from "../isa/exit.ts";
import type { Env } from "../isa/semantics.ts";
import {
  CPL,
  DEBUG_TRAPS,
  DR6,
  FLAG,
  NMI_BLOCKED,
  PENDING_ERROR,
  PENDING_VECTOR,
  RFLAGS,
  RIP,
  RIP_BASE,
  SEGMENTS,
  SHADOW,
  SREG,
  VECTOR,
} from "../isa/state.ts";
import type { Code, Local } from "../wasm/code.ts";
import type { FuncRef, ModuleBuilder } from "../wasm/module.ts";
import { i32, select, type Val } from "../wasm/value.ts";
import { breakpointsEnabled, emitInstructionBreakpoints } from "./breakpoints.ts";
import { codeBits, isSealed, pageVersion, pageWords } from "./code-pages.ts";
import {
  ARENA,
  ARENA_SIZE,
  BLOCK,
  BLOCK_HASH,
  BLOCK_HASH_ENTRIES,
  BLOCK_MAX_RECORDS,
  HOT_LIST,
  HOT_LIST_ENTRIES,
  JUMP_CACHE,
  JUMP_CACHE_ENTRIES,
  PAGE_HEADS,
  PAGE_HEADS_SIZE,
  PAGE_WORDS,
  RECORD,
  STEP_BLOCK,
  TAIL,
  VAR,
} from "./layout.ts";
import { type PagingFuncs, WALK } from "./paging.ts";
import { jumpCacheSlot, jumpTag } from "./tlb.ts";

export interface BlockFuncs {
  /** () -> first record for the RIP field, or 0: an exception is pending, or EXIT_REASON is set. */
  readonly lookup: FuncRef;
  /** The same without the jump cache (the block that it knows is dead). */
  readonly lookupAgain: FuncRef;
  /** (last record, link address) -> first record of the next block, or 0 as for lookup. */
  readonly follow: FuncRef;
  /** (linear) -> (status, host) for an instruction fetch. */
  readonly translateFetch: FuncRef;
  /** (first record): puts a block on the list of the hot ones. */
  readonly noteHot: FuncRef;
  /** Forgets all blocks. */
  readonly flushBlocks: FuncRef;
  /** (host address) -> block of the 64-bit code there, decoded where none is known. */
  readonly blockAt: FuncRef;
}

export const BLOCK_SPACE = BLOCK.SIZE + (BLOCK_MAX_RECORDS + 1) * RECORD.SIZE + TAIL.SIZE;

/** Bit of VAR.CODE_KEY. */
const LIMIT_IN_PAGE = 4;
/** SHADOW bit of MOV SS and POP SS. */
const SHADOW_MOV_SS = 2;
/** DR6.BS. */
const SINGLE_STEP = 1 << 14;

/** Rounds of decoding code that another vCPU is writing, before its instructions run one by one. */
const DECODE_ROUNDS = 8;
/** In place of a block: its code did not hold still. */
const UNSTEADY = -1;

/** HOST of a block that is dead: no code lies there. */
const DEAD = -1;

/** Offset in BLOCK_HASH of the chain of the blocks at a place. */
function hashAt(host: Val, mode: Val): Val {
  return host
    .xor(host.shrU(14))
    .xor(mode.shl(7))
    .and(BLOCK_HASH_ENTRIES - 1)
    .shl(2);
}

/** (host address of a page): drops this vCPU's translated code there. Announced first, since stores need it and it needs nothing. */
export function emitInvalidation(m: ModuleBuilder, env: (c: Code) => Env, staleHandler: number): FuncRef {
  return m.func("invalidatePage", ["i32"], [], (c) => {
    const x = env(c);
    const [page] = c.params;
    const { cpu } = x;
    const headAt = c.let(page.shrU(12).shl(2));
    const tagged = c.local("i32", cpu.ld32(headAt, PAGE_HEADS));
    // What the code of others does in this page is none of this vCPU's business.
    c.if(tagged.eqz(), () => c.ret());
    c.st32(cpu, 0, cpu.ld32(0, VAR.COUNT_INVALIDATED).add(1), VAR.COUNT_INVALIDATED);
    c.st32(cpu, headAt, 0, PAGE_HEADS);
    c.loop((head) => {
      c.if(tagged, () => {
        const block = c.let(tagged.and(-2));
        const host = c.let(cpu.ld32(block, BLOCK.HOST));
        c.if(host.ne(DEAD), () => {
          // Out of its chain, which would grow with each change of the same code.
          const link = c.local("i32", hashAt(host, cpu.ld32(block, BLOCK.MODE)).add(BLOCK_HASH));
          c.loop((next) => {
            const here = c.let(cpu.ld32(link));
            c.if(
              here.eq(block),
              () => c.st32(cpu, link, cpu.ld32(block, BLOCK.HASH_NEXT)),
              () =>
                c.if(here, () => {
                  c.set(link, here.add(BLOCK.HASH_NEXT));
                  c.br(next);
                }),
            );
          });
          c.st32(cpu, block, DEAD, BLOCK.HOST);
        });
        const record = c.local("i32", block.add(BLOCK.SIZE));
        const end = c.let(record.add(cpu.ld32(block, BLOCK.COUNT).mul(RECORD.SIZE)));
        c.loop((next) => {
          c.st16(cpu, record, staleHandler, RECORD.HANDLER);
          c.set(record, record.add(RECORD.SIZE));
          c.brIf(next, record.ltU(end));
        });
        // Whoever still comes by an old link or the jump cache is charged by the block that then takes its place.
        c.st32(cpu, block, 0, BLOCK.COUNT);
        // The tail is behind the last instruction, or one record further where the block just falls through: both places are links or unused.
        c.st32(cpu, cpu.ld32(block, BLOCK.LAST), 0, TAIL.NOT_TAKEN);
        c.st32(cpu, cpu.ld32(block, BLOCK.LAST), 0, TAIL.TAKEN);
        c.if(
          tagged.and(1),
          () => c.set(tagged, cpu.ld32(block, BLOCK.PAGE2_NEXT)),
          () => c.set(tagged, cpu.ld32(block, BLOCK.PAGE_NEXT)),
        );
        c.br(head);
      });
    });
  });
}

export function emitBlocks(
  m: ModuleBuilder,
  env: (c: Code) => Env,
  paging: PagingFuncs,
  sealPage: FuncRef,
  decode: FuncRef,
): BlockFuncs {
  const exception = (x: Env, vector: number, error: number): void => {
    x.put(PENDING_VECTOR, vector);
    x.put(PENDING_ERROR, error);
  };

  const flushBlocks = m.func("flushBlocks", [], [], (c) => {
    const x = env(c);
    const { cpu } = x;
    c.st32(cpu, 0, cpu.ld32(0, VAR.COUNT_ARENA_FLUSHES).add(1), VAR.COUNT_ARENA_FLUSHES);
    c.memoryFill(cpu, BLOCK_HASH, 0, BLOCK_HASH_ENTRIES * 4);
    c.memoryFill(cpu, JUMP_CACHE, 0xff, JUMP_CACHE_ENTRIES * 16);
    // Only the part of the page lists that guest memory reaches has been written.
    c.memoryFill(
      cpu,
      PAGE_HEADS,
      0,
      i32(1)
        .shl(cpu.ld32(0, VAR.RAM_BITS).sub(10))
        .and(PAGE_HEADS_SIZE * 2 - 1),
    );
    // The pages stay sealed, for other vCPUs have code too; a store to where there is none any more opens its page.
    c.st32(cpu, 0, ARENA, VAR.ARENA_NEXT);
    c.st32(cpu, 0, 0, VAR.HOT_COUNT);
  });

  /** (first record): the block has become hot. */
  const noteHot = m.func("noteHot", ["i32"], [], (c) => {
    const x = env(c);
    const { cpu } = x;
    const [record] = c.params;
    const count = c.let(cpu.ld32(0, VAR.HOT_COUNT));
    c.if(
      record.ltU(ARENA).or(count.geU(HOT_LIST_ENTRIES)),
      () => c.st32(cpu, record.sub(BLOCK.SIZE - BLOCK.HEAT), 0),
      () => {
        c.st32(cpu, count.shl(4), record, HOT_LIST);
        c.st64(cpu, count.shl(4), x.get(RIP_BASE), HOT_LIST + 8);
        c.st32(cpu, 0, count.add(1), VAR.HOT_COUNT);
      },
    );
  });

  /** Linear address of an instruction pointer. */
  const linearOf = (x: Env, rip: Val): Val => {
    const { c } = x;
    const linear = c.local("i64");
    c.if(
      x.cpu.ld32(0, VAR.CODE_MODE).eq(2),
      () => c.set(linear, rip),
      () => c.set(linear, x.get(SEGMENTS[SREG.CS].base).add(rip.and(0xffffffffn)).and(0xffffffffn)),
    );
    return linear;
  };

  /** (linear) -> (status, host) for an instruction fetch. */
  const translateFetch = m.func("translateFetch", ["i64"], ["i32", "i32"], (c) => {
    const x = env(c);
    const [linear] = c.params;
    const bits = i32(WALK.FETCH).or(x.get(CPL).eq(3).shl(2));
    const [status, host] = c.callMany(paging.translate, [linear, bits]);
    c.if(status.eq(2), () => {
      // No memory there: the bus floats high, and FF FF is no instruction.
      exception(x, VECTOR.UD, -1);
      c.ret(1, 0);
    });
    c.results([status, host]);
  });

  /** Checks that the instruction pointer may be fetched from at all: canonical, or within the code segment's limit. 1 = exception pending. */
  const checkFetch = m.func("checkFetch", ["i64", "i64"], ["i32"], (c) => {
    const x = env(c);
    const [rip, linear] = c.params;
    c.if(
      x.cpu.ld32(0, VAR.CODE_MODE).eq(2),
      () => {
        c.if(linear.shl(16).shrS(16).ne(linear), () => {
          exception(x, VECTOR.GP, 0);
          c.ret(1);
        });
      },
      () => {
        c.if(rip.gtU(x.get(SEGMENTS[SREG.CS].limit).zx()), () => {
          exception(x, VECTOR.GP, 0);
          c.ret(1);
        });
      },
    );
    c.results([0]);
  });

  const enter = (c: Code, x: Env, rip: Val, linear: Val): void => {
    x.put(RIP_BASE, rip.sub(linear.and(0xfffn)));
    void c;
  };

  /** One instruction decoded anew: for single steps, interrupt shadows and code at the end of its segment. */
  const stepBlock = m.func("stepBlock", [], ["i32"], (c) => {
    const x = env(c);
    const rip = c.let(x.get(RIP));
    const linear = c.let(linearOf(x, rip));
    c.if(c.call(checkFetch, rip, linear), () => c.ret(0));
    const [status, host] = c.callMany(translateFetch, [linear]);
    c.if(status, () => c.ret(0));
    c.if(c.call(decode, linear, host, 1, STEP_BLOCK), () => c.ret(0));
    enter(c, x, rip, linear);
    c.if(
      x.cpu
        .ld32(0, VAR.CODE_MODE)
        .ne(2)
        .and(rip.add(x.cpu.ld32u64(STEP_BLOCK, BLOCK.LENGTH)).sub(1).gtU(x.get(SEGMENTS[SREG.CS].limit).zx())),
      () => {
        exception(x, VECTOR.GP, 0);
        c.ret(0);
      },
    );
    c.results([STEP_BLOCK + BLOCK.SIZE]);
  });

  /** (linear, host, mode) -> block: decodes and keeps the block at a place where none is known; 0 where a fetch faulted, UNSTEADY where others
   *  kept writing to the page while it was read. */
  const makeBlock = m.func("makeBlock", ["i64", "i32", "i32"], ["i32"], (c) => {
    const x = env(c);
    const { cpu } = x;
    const [linear, host, mode] = c.params;
    const block = c.local("i32");
    const page = c.let(host.and(-4096));
    const firstWords = c.let(pageWords(x, page));
    // The page that the instruction runs into, as the round before found out.
    const second = c.local("i32", 0);
    const secondWords = c.local("i32");
    const version = c.local("i64");
    const secondVersion = c.local("i64");
    const last = c.local("i32");
    const mark = (words: Val, from: Val, to: Val): void =>
      c.drop(c.atomicRmw("or", x.ram, 8, words, codeBits(from, to), PAGE_WORDS.CODE));
    const left = c.local("i32", DECODE_ROUNDS);
    c.block((steady) => {
      c.loop((round) => {
        c.block((again) => {
          c.invoke(sealPage, page);
          c.if(second, () => c.invoke(sealPage, second));
          // Nothing may be asked of the host from here on until the block is linked: requests of other vCPUs would pass it by.
          c.set(version, pageVersion(x, firstWords));
          c.if(second, () => c.set(secondVersion, pageVersion(x, secondWords)));
          c.if(cpu.ld32(0, VAR.ARENA_NEXT).gtU(ARENA + ARENA_SIZE - BLOCK_SPACE), () => c.invoke(flushBlocks));
          c.set(block, cpu.ld32(0, VAR.ARENA_NEXT));
          c.if(c.call(decode, linear, host, BLOCK_MAX_RECORDS, block), () => c.ret(0));
          const reached = c.let(cpu.ld32(block, BLOCK.HOST2));
          c.if(reached.ne(second), () => {
            c.set(second, reached);
            c.set(secondWords, pageWords(x, reached));
            c.br(again);
          });
          c.set(last, host.add(cpu.ld32(block, BLOCK.LENGTH)).sub(1));
          mark(firstWords, host, select(second, i32(0xfff), last));
          c.if(second, () => {
            mark(secondWords, i32(0), last);
            c.brIf(again, isSealed(secondVersion).eqz().or(pageVersion(x, secondWords).ne(secondVersion)));
          });
          c.brIf(steady, isSealed(version).ne(0).and(pageVersion(x, firstWords).eq(version)), "likely");
        });
        c.set(left, left.sub(1));
        c.brIf(round, left);
      });
      c.ret(UNSTEADY);
    });
    const chain = c.let(hashAt(host, mode));
    c.st32(cpu, 0, cpu.ld32(block, BLOCK.LAST).add(RECORD.SIZE + TAIL.SIZE), VAR.ARENA_NEXT);
    c.st32(cpu, block, host, BLOCK.HOST);
    c.st32(cpu, block, mode, BLOCK.MODE);
    c.st32(cpu, block, 0, BLOCK.HEAT);
    c.st32(cpu, block, 0, BLOCK.REGION);
    c.st32(cpu, block, cpu.ld32(chain, BLOCK_HASH), BLOCK.HASH_NEXT);
    c.st32(cpu, chain, block, BLOCK_HASH);
    const inPage = (of: Val, next: number, tag: number): void => {
      const headAt = c.let(of.shrU(12).shl(2));
      c.st32(cpu, block, cpu.ld32(headAt, PAGE_HEADS), next);
      c.st32(cpu, headAt, block.or(tag), PAGE_HEADS);
    };
    inPage(page, BLOCK.PAGE_NEXT, 0);
    c.if(second, () => inPage(second, BLOCK.PAGE2_NEXT, 1));
    c.results([block]);
  });

  /** (host) -> block of the 64-bit code there, which is known to stay within its page; 0 where the present mode decodes nothing of the kind. */
  const blockAt = m.func("blockAt", ["i32"], ["i32"], (c) => {
    const x = env(c);
    const [host] = c.params;
    c.if(x.cpu.ld32(0, VAR.CODE_MODE).ne(2), () => c.ret(0));
    const block = c.let(c.call(makeBlock, host.and(0xfff).zx(), host, 2));
    c.results([select(block.eq(UNSTEADY), i32(0), block)]);
  });

  const lookupSlow = m.func("lookupSlow", ["i64", "i64"], ["i32"], (c) => {
    const x = env(c);
    const [rip, linear] = c.params;
    const { cpu } = x;
    c.if(c.call(checkFetch, rip, linear), () => c.ret(0));
    c.st32(cpu, 0, 0, VAR.FETCH_LOCAL);
    const [status, host] = c.callMany(translateFetch, [linear]);
    c.if(status, () => c.ret(0));
    const mode = c.let(cpu.ld32(0, VAR.CODE_KEY));
    const block = c.local("i32", cpu.ld32(hashAt(host, mode), BLOCK_HASH));
    c.block((found) => {
      c.loop((head) => {
        c.if(block, () => {
          c.if(cpu.ld32(block, BLOCK.HOST).eq(host).and(cpu.ld32(block, BLOCK.MODE).eq(mode)), () => {
            // A block that runs into a second page is good only where that page is still the same.
            const second = c.let(cpu.ld32(block, BLOCK.HOST2));
            c.brIf(found, second.eqz());
            const [secondStatus, secondHost] = c.callMany(translateFetch, [linear.and(-4096n).add(4096n)]);
            c.if(secondStatus, () => c.ret(0));
            c.brIf(found, secondHost.eq(second));
          });
          c.set(block, cpu.ld32(block, BLOCK.HASH_NEXT));
          c.br(head);
        });
      });
      c.set(block, c.call(makeBlock, linear, host, mode));
      c.if(block.eqz(), () => c.ret(0));
      c.if(block.eq(UNSTEADY), () => c.returnCall(stepBlock));
    });
    // The whole block must lie within the code segment; one that does not runs an instruction at a time up to the one that faults.
    c.if(
      mode.ne(2).and(rip.add(cpu.ld32u64(block, BLOCK.LENGTH)).sub(1).gtU(x.get(SEGMENTS[SREG.CS].limit).zx())),
      () => c.returnCall(stepBlock),
    );
    const entry = c.let(jumpCacheSlot(linear));
    c.st64(cpu, entry, linear, JUMP_CACHE);
    c.st32(cpu, entry, block.add(BLOCK.SIZE), JUMP_CACHE + 8);
    c.st32(cpu, entry, jumpTag(cpu, linear), JUMP_CACHE + 12);
    c.if(linear.ltS(0n).and(cpu.ld32(0, VAR.FETCH_LOCAL)), () => c.st32(cpu, 0, 1, VAR.HIGH_LOCAL));
    enter(c, x, rip, linear);
    c.results([block.add(BLOCK.SIZE)]);
  });

  const instructionBreakpoints = emitInstructionBreakpoints(m, env);

  /** What must be looked at before the next block may run. Gives 1 where the caller returns 0, 2 where one instruction runs alone. */
  const special = m.func("beforeBlock", [], ["i32"], (c) => {
    const x = env(c);
    const { cpu } = x;
    // A task switch that left an exception in the new task's context (src/isa/system/task.ts).
    c.if(x.get(PENDING_VECTOR).geS(0), () => c.ret(1));
    const shadow = c.let(x.get(SHADOW));
    // Traps of the instruction that has just run, which MOV SS and POP SS put off (SDM Vol. 3A 6.8.3; Vol. 3B 17.3.1).
    c.if(x.get(DEBUG_TRAPS).ne(0).and(shadow.and(SHADOW_MOV_SS).eqz()), () => {
      x.put(DR6, x.get(DR6).or(x.get(DEBUG_TRAPS)));
      x.put(DEBUG_TRAPS, 0);
      exception(x, VECTOR.DB, -1);
      c.ret(1);
    });
    const pending = c.let(cpu.ld32(0, VAR.EVENT_PENDING));
    const maskable = pending.and(1).and(x.get(RFLAGS).shrU(Math.log2(FLAG.IF)));
    const nmi = pending.shrU(1).and(x.get(NMI_BLOCKED).xor(1)).and(1);
    const now = c.let(maskable.or(nmi));
    c.if(now.and(shadow.eqz()), () => {
      c.st32(cpu, 0, EXIT.INTERRUPT_WINDOW, VAR.EXIT_REASON);
      c.ret(1);
    });
    x.put(SHADOW, 0);
    const step = c.let(x.get(RFLAGS).and(FLAG.TF));
    c.if(step, () => x.put(DEBUG_TRAPS, x.get(DEBUG_TRAPS).or(SINGLE_STEP)));
    c.if(breakpointsEnabled(x), () => {
      const hit = c.let(c.call(instructionBreakpoints, linearOf(x, x.get(RIP))));
      const suppressed = x.get(RFLAGS).and(FLAG.RF).or(shadow.and(SHADOW_MOV_SS));
      c.if(hit.ne(0).and(suppressed.eqz()), () => {
        x.put(DR6, x.get(DR6).or(hit));
        x.put(DEBUG_TRAPS, 0);
        exception(x, VECTOR.DB, -1);
        c.ret(1);
      });
      // RF holds for one instruction (SDM Vol. 3B 17.3.1.1).
      x.put(RFLAGS, x.get(RFLAGS).and(~FLAG.RF));
      c.ret(2);
    });
    c.if(step.or(now), () => c.ret(2));
    c.results([0]);
  });

  const lookupBody = (c: Code, useCache: boolean): void => {
    const x = env(c);
    const { cpu } = x;
    // What the jump cache holds for a dead block must go even where the budget ends here, or the next run would meet it again.
    if (!useCache) c.st64(cpu, jumpCacheSlot(linearOf(x, x.get(RIP))), -1n, JUMP_CACHE);
    // Before the interrupt shadow is taken back, which holds until an instruction has run; a step's trap comes before what the host injects.
    c.if(
      cpu
        .ld32(0, VAR.BUDGET)
        .leS(cpu.ld32(0, VAR.LIMIT))
        .and(x.get(DEBUG_TRAPS).eqz().or(x.get(SHADOW).ne(0))),
      () => {
        c.st32(cpu, 0, EXIT.BUDGET, VAR.EXIT_REASON);
        c.ret(0);
      },
      undefined,
      "unlikely",
    );
    c.if(
      x
        .get(DEBUG_TRAPS)
        .or(cpu.ld32(0, VAR.EVENT_PENDING))
        .or(x.get(SHADOW))
        .or(x.get(RFLAGS).and(FLAG.TF))
        .or(breakpointsEnabled(x)),
      () => {
        const what = c.let(c.call(special));
        c.if(what.eq(1), () => c.ret(0));
        c.if(what.eq(2), () => c.returnCall(stepBlock));
      },
      undefined,
      "unlikely",
    );
    const rip = c.let(x.get(RIP));
    const linear = c.let(linearOf(x, rip));
    if (useCache) {
      const entry = c.let(jumpCacheSlot(linear));
      c.if(
        cpu
          .ld64(entry, JUMP_CACHE)
          .eq(linear)
          .and(cpu.ld32(entry, JUMP_CACHE + 12).eq(jumpTag(cpu, linear))),
        () => {
          const record = c.let(cpu.ld32(entry, JUMP_CACHE + 8));
          // A block that another segment's limit allowed is looked at again (SDM Vol. 3A 5.3).
          const last = rip.add(cpu.ld32u64(record.sub(BLOCK.SIZE - BLOCK.LENGTH))).sub(1);
          const beyond = cpu
            .ld32(0, VAR.CODE_KEY)
            .ne(2)
            .and(last.gtU(x.get(SEGMENTS[SREG.CS].limit).zx()));
          c.if(
            beyond.eqz(),
            () => {
              enter(c, x, rip, linear);
              c.ret(record);
            },
            undefined,
            "likely",
          );
        },
        undefined,
        "likely",
      );
    }
    c.st32(cpu, 0, cpu.ld32(0, VAR.COUNT_LOOKUPS).add(1), VAR.COUNT_LOOKUPS);
    c.returnCall(lookupSlow, rip, linear);
  };
  const lookup = m.func("lookup", [], ["i32"], (c) => lookupBody(c, true));
  const lookupAgain = m.func("lookupAgain", [], ["i32"], (c) => lookupBody(c, false));

  const follow = m.func("follow", ["i32", "i32"], ["i32"], (c) => {
    const x = env(c);
    const [record, link] = c.params;
    const { cpu } = x;
    const place = c.let(cpu.ld16u(record, RECORD.PLACE));
    const taken = link.sub(record).eq(TAIL.TAKEN);
    const step = c.local("i32", place.shrU(12));
    c.if(taken, () => c.set(step, step.add(cpu.ld32(record, RECORD.IMM))));
    const rip: Local = c.local("i64", x.get(RIP_BASE).add(place.and(0xfff).zx()).add(step.sx()));
    const target = c.let(rip);
    c.if(cpu.ld32(0, VAR.CODE_MODE).ne(2), () => {
      c.set(rip, rip.and(0xffffffffn));
      c.if(taken.and(cpu.ld8u(record, RECORD.ADDRESSING).shrU(7)), () => c.set(rip, rip.and(0xffffn)));
    });
    c.if(
      taken.and(c.call(checkFetch, rip, rip)),
      () => {
        // The jump itself faults where its target is not canonical or beyond the limit (SDM Vol. 2A JMP).
        x.put(RIP, x.get(RIP_BASE).add(place.and(0xfff).zx()));
        c.ret(0);
      },
      undefined,
      "unlikely",
    );
    x.put(RIP, rip);
    const flushes = c.let(cpu.ld32(0, VAR.COUNT_ARENA_FLUSHES));
    const next = c.local("i32", c.call(lookup));
    // The jump cache may name a block that is dead: a link to that one would be taken for ever.
    c.if(next.geU(ARENA), () => {
      c.if(
        cpu.ld32(next.sub(BLOCK.SIZE), BLOCK.HOST).eq(DEAD),
        () => c.set(next, c.call(lookupAgain)),
        undefined,
        "unlikely",
      );
    });
    // A link stays within the page, and so needs no look at the mapping; a block that reaches into the next page does.
    const samePage = place.and(0xfff).add(step).ltU(0x1000).and(rip.eq(target));
    const lasting = next.geU(ARENA).and(flushes.eq(cpu.ld32(0, VAR.COUNT_ARENA_FLUSHES)));
    // Where the segment ends within a page, the limit is looked at each time.
    const linkable = cpu.ld32(0, VAR.CODE_KEY).and(LIMIT_IN_PAGE).eqz();
    c.if(samePage.and(lasting).and(linkable), () => {
      c.if(cpu.ld32(next.sub(BLOCK.SIZE), BLOCK.HOST2).eqz(), () => c.st32(cpu, link, next));
    });
    c.results([next]);
  });

  return { lookup, lookupAgain, follow, noteHot, flushBlocks, translateFetch, blockAt };
}
