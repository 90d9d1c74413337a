// The interpreter's main loop: executes the records of a block, the most frequent instructions inline behind one `br_table`, all others as
// functions behind one `call_indirect` (the structure that was fastest at full size: docs/architecture.md, "The interpreter").

import { EXIT } from "../isa/exit.ts";
import { DEBUG_TRAPS, PENDING_ERROR, PENDING_VECTOR, RIP, RIP_BASE, SREG, VECTOR } from "../isa/state.ts";
import type { Label } from "../wasm/code.ts";
import type { FuncRef, FuncType, ModuleBuilder, TableRef } from "../wasm/module.ts";
import type { Val } from "../wasm/value.ts";
import type { BlockFuncs } from "./blocks.ts";
import { PSEUDO } from "./decoder.ts";
import { HelperEnv } from "./env.ts";
import type { HandlerSpec } from "./handlers.ts";
import { type InterpreterParts, InterpreterSemantics } from "./interpreter-semantics.ts";
import { BLOCK, GOALS, GOALS_ENTRIES, HANDLER_COUNTS, RECORD, TAIL, VAR } from "./layout.ts";
import { STATUS } from "./status.ts";

export interface InterpreterOptions {
  readonly m: ModuleBuilder;
  readonly parts: InterpreterParts;
  readonly table: TableRef;
  readonly handlerType: FuncType;
  readonly inline: readonly HandlerSpec[];
  readonly blocks: BlockFuncs;
  readonly deliverPending: FuncRef;
  /** Count executions by handler at HANDLER_COUNTS (i32 each): for choosing what is inline. */
  readonly countHandlers: boolean;
}

/** () -> EXIT reason. Runs from the RIP field until the budget is used up or something needs the host. */
export function emitInterpreter(options: InterpreterOptions): FuncRef {
  const { m, parts, blocks } = options;
  const { cpu } = parts;
  return m.func("run", [], ["i32"], (c) => {
    const x = new HelperEnv(c, parts, false);
    const record = c.local("i32");
    const status = c.local("i32");
    const link = c.local("i32");
    const lowBits = (): Val => cpu.ld16u(record, RECORD.PLACE).and(0xfff).zx();
    const setRip = (): void => x.put(RIP, x.get(RIP_BASE).add(lowBits()).and(cpu.ld64(0, VAR.RIP_MASK)));
    // Where a block was looked up that has been done, and not after what the lookup takes back: the interrupt shadow, RF, a step's beginning
    // belong to an instruction that is going to run now (SDM Vol. 2B STI, Vol. 3A 6.8.3).
    const poll = (): void =>
      c.if(
        cpu.ld32(0, VAR.BUDGET).leS(cpu.ld32(0, VAR.LIMIT)),
        () => {
          setRip();
          c.ret(EXIT.BUDGET);
        },
        undefined,
        "unlikely",
      );

    c.set(record, c.call(blocks.lookup));
    c.loop((enter) => {
      c.if(
        record.eqz(),
        () => {
          c.if(x.get(PENDING_VECTOR).ltS(0), () => c.ret(cpu.ld32(0, VAR.EXIT_REASON)));
          // Delivery counts, so that a guest which only faults still gives way.
          c.st32(cpu, 0, cpu.ld32(0, VAR.BUDGET).sub(1), VAR.BUDGET);
          x.put(DEBUG_TRAPS, 0);
          c.if(c.call(options.deliverPending), () => c.ret(EXIT.SHUTDOWN));
          c.set(record, c.call(blocks.lookup));
          c.br(enter);
        },
        undefined,
        "unlikely",
      );
      c.st32(cpu, 0, cpu.ld32(0, VAR.BUDGET).sub(cpu.ld32(record.sub(BLOCK.SIZE - BLOCK.COUNT))), VAR.BUDGET);
      const heat = c.let(cpu.ld32(record.sub(BLOCK.SIZE - BLOCK.HEAT)).add(1));
      c.st32(cpu, record.sub(BLOCK.SIZE - BLOCK.HEAT), heat);
      c.if(heat.eq(cpu.ld32(0, VAR.HOT_THRESHOLD)), () => c.invoke(blocks.noteHot, record), undefined, "unlikely");
      c.block((followLink) => {
        c.block((byStatus) => {
          c.loop((dispatch) => {
            if (options.countHandlers) {
              const count = c.let(cpu.ld16u(record, RECORD.HANDLER).shl(2));
              c.st32(cpu, count, cpu.ld32(count, HANDLER_COUNTS).add(1), HANDLER_COUNTS);
            }
            c.block((outOfLine) => {
              const bodies: (() => void)[] = [];
              bodies[PSEUDO.UNDEFINED] = () => {
                x.put(PENDING_VECTOR, VECTOR.UD);
                x.put(PENDING_ERROR, -1);
                c.set(status, STATUS.FAULT);
                c.br(byStatus);
              };
              bodies[PSEUDO.STALE] = () => {
                setRip();
                c.set(record, c.call(blocks.lookupAgain));
                c.br(enter);
              };
              bodies[PSEUDO.FALL_THROUGH] = () => {
                c.set(link, record.add(TAIL.NOT_TAKEN));
                c.br(followLink);
              };
              bodies[PSEUDO.TOO_LONG] = () => {
                x.put(PENDING_VECTOR, VECTOR.GP);
                x.put(PENDING_ERROR, 0);
                c.set(status, STATUS.FAULT);
                c.br(byStatus);
              };
              bodies[PSEUDO.ENTER_REGION] = () => {
                const slot = cpu.ld32(record.sub(BLOCK.SIZE - BLOCK.REGION));
                // The first block has been charged already.
                const charged = c.let(cpu.ld32(0, VAR.BUDGET).add(cpu.ld32(record.sub(BLOCK.SIZE - BLOCK.COUNT))));
                c.set(status, c.callIndirect(options.table, options.handlerType, slot, [record])[0]);
                c.set(record, cpu.ld32(0, VAR.IP));
                const done = charged.sub(cpu.ld32(0, VAR.BUDGET)).zx();
                c.st64(cpu, 0, cpu.ld64(0, VAR.COUNT_IN_REGIONS).add(done), VAR.COUNT_IN_REGIONS);
                c.brIf(byStatus, status.ne(STATUS.INTERPRET));
                c.st32(cpu, 0, cpu.ld32(0, VAR.COUNT_REGION_MISSES).add(1), VAR.COUNT_REGION_MISSES);
                c.brIf(dispatch, cpu.ld16u(record, RECORD.HANDLER).ne(PSEUDO.ENTER_REGION), "likely");
                // The instruction whose handler has given way to the region.
                const original = cpu.ld16u(record.sub(BLOCK.SIZE - BLOCK.ORIGINAL));
                c.set(status, c.callIndirect(options.table, options.handlerType, original, [record])[0]);
                c.brIf(byStatus, status, "unlikely");
                c.set(record, record.add(RECORD.SIZE));
                c.br(dispatch);
              };
              for (const spec of options.inline) {
                bodies.push(() => {
                  const leave = (how: number | Val): void => {
                    if (how === STATUS.DONE) {
                      c.set(record, record.add(RECORD.SIZE));
                      c.br(dispatch);
                    } else if (how === STATUS.TAKEN || how === STATUS.NOT_TAKEN) {
                      c.set(link, record.add(how === STATUS.TAKEN ? TAIL.TAKEN : TAIL.NOT_TAKEN));
                      c.br(followLink);
                    } else if (typeof how === "number") {
                      c.set(status, how);
                      c.br(byStatus);
                    } else {
                      // A conditional jump: the link is chosen without a branch.
                      c.set(
                        link,
                        record.add(how.sub(STATUS.NOT_TAKEN).mul(TAIL.TAKEN - TAIL.NOT_TAKEN)).add(TAIL.NOT_TAKEN),
                      );
                      c.br(followLink);
                    }
                  };
                  c.scope(() =>
                    new InterpreterSemantics(
                      c,
                      parts,
                      record,
                      spec.row,
                      spec.opcode,
                      spec.size,
                      spec.form,
                      leave,
                    ).emit(),
                  );
                });
              }
              const labels: Label[] = [];
              const open = (k: number): void => {
                if (k < 0) {
                  c.brTable(cpu.ld16u(record, RECORD.HANDLER), labels, outOfLine);
                  return;
                }
                c.block((label) => {
                  labels[k] = label;
                  open(k - 1);
                });
                bodies[k]();
              };
              open(bodies.length - 1);
            });
            c.set(
              status,
              c.callIndirect(options.table, options.handlerType, cpu.ld16u(record, RECORD.HANDLER), [record])[0],
            );
            c.brIf(byStatus, status, "unlikely");
            c.set(record, record.add(RECORD.SIZE));
            c.br(dispatch);
          });
        });
        c.switch(
          status,
          [
            [
              [STATUS.FAULT],
              () => {
                setRip();
                // Handlers do not know the segment of an operand in flat code (SDM Vol. 1 3.3.7.1, Vol. 3A 6.15 #SS).
                c.if(
                  cpu.ld32(0, VAR.NOT_CANONICAL),
                  () => {
                    c.st32(cpu, 0, 0, VAR.NOT_CANONICAL);
                    const stack = cpu.ld8u(record, RECORD.ADDRESSING).bits(4, 3).eq(SREG.SS);
                    c.if(stack.and(x.get(PENDING_VECTOR).eq(VECTOR.GP)), () => x.put(PENDING_VECTOR, VECTOR.SS));
                  },
                  undefined,
                  "unlikely",
                );
                c.set(record, 0);
                c.br(enter);
              },
            ],
            [
              [STATUS.LOOKUP],
              () => {
                const goal = c.let(x.get(RIP).wrap());
                const hash = record.shrU(4).xor(goal).xor(goal.shrU(7));
                const slot = c.let(hash.and(GOALS_ENTRIES - 1).shl(3));
                c.st32(cpu, slot, record, GOALS);
                c.st32(cpu, slot, goal, GOALS + 4);
                c.set(record, c.call(blocks.lookup));
                c.br(enter);
              },
            ],
            [[STATUS.EXIT], () => c.ret(cpu.ld32(0, VAR.EXIT_REASON))],
            [
              [STATUS.ENTER],
              () => {
                poll();
                c.br(enter);
              },
            ],
          ],
          () => undefined,
        );
        c.set(link, record.add(status.sub(STATUS.NOT_TAKEN).mul(TAIL.TAKEN - TAIL.NOT_TAKEN)).add(TAIL.NOT_TAKEN));
      });
      const next = c.let(cpu.ld32(link));
      c.if(
        next,
        () => {
          c.set(record, next);
          poll();
          c.br(enter);
        },
        undefined,
        "likely",
      );
      c.set(record, c.call(blocks.follow, record, link));
      c.br(enter);
    });
    c.unreachable();
  });
}
