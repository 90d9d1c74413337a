// The decoder: bytes at a linear address to the records of a block (SDM Vol. 2A chapter 2; record layout in layout.ts).
// It is code of the engine module and reads the tables of decode-table.ts from the vCPU's memory.

import { FEATURE_MAP } from "../isa/cpuid-table.ts";
import type { Env } from "../isa/semantics.ts";
import { RIP_BASE, SREG, ZERO_OFFSET } from "../isa/state.ts";
import type { Code } from "../wasm/code.ts";
import type { FuncRef, ModuleBuilder } from "../wasm/module.ts";
import { i32, select, type Val } from "../wasm/value.ts";
import {
  CLASS,
  ENTRY,
  ENTRY_FLAG,
  type Entry,
  encodeEntry,
  FORM,
  IMMEDIATE,
  NODE,
  OPSIZE,
  type OpcodeMaps,
  SOURCE,
  VARIANTS_PER_ENTRY,
} from "./decode-table.ts";
import { BLOCK, DECODE_BASE, DECODE_END, FETCH_BUFFER, RECORD, TAIL, VAR } from "./layout.ts";

/** Handlers that are no instruction of the tables. */
export const PSEUDO = { UNDEFINED: 0, STALE: 1, FALL_THROUGH: 2, TOO_LONG: 3, ENTER_REGION: 4, COUNT: 5 } as const;

/** Prefix classes (SDM Vol. 2A 2.1.1, 2.2.1). */
const PREFIX = { NONE: 0, OPERAND_SIZE: 1, ADDRESS_SIZE: 2, LOCK: 3, REPNE: 4, REP: 5, SEGMENT: 6, REX: 7 } as const;

const MAX_LENGTH = 15;

/** Base and index by ModRM.rm with 16-bit addresses (SDM Vol. 2A Table 2-1): register bytes, and whether the default segment is SS. */
const ADDRESS_16: readonly (readonly [base: number, index: number, stack: number])[] = [
  [3, 6, 0],
  [3, 7, 0],
  [5, 6, 1],
  [5, 7, 1],
  [6, -1, 0],
  [7, -1, 0],
  [5, -1, 1],
  [3, -1, 0],
];

export interface DecodeTables {
  readonly prefixes: number;
  readonly address16: number;
  readonly roots: number;
  readonly choices: number;
  readonly entries: number;
  readonly variants: number;
  /** The bytes from DECODE_BASE on. */
  readonly bytes: Uint8Array;
}

/** Lays the tables out in the vCPU's memory. */
export function layOutTables(entries: readonly Entry[], maps: OpcodeMaps): DecodeTables {
  const bytes = new Uint8Array(DECODE_END - DECODE_BASE);
  let next = 0;
  const place = (data: Uint8Array): number => {
    next = (next + 7) & ~7;
    if (next + data.length > bytes.length) throw new Error("the decoding tables have outgrown their place");
    bytes.set(data, next);
    const at = DECODE_BASE + next;
    next += data.length;
    return at;
  };
  const prefixes = new Uint8Array(256);
  prefixes[0x66] = PREFIX.OPERAND_SIZE;
  prefixes[0x67] = PREFIX.ADDRESS_SIZE;
  prefixes[0xf0] = PREFIX.LOCK;
  prefixes[0xf2] = PREFIX.REPNE;
  prefixes[0xf3] = PREFIX.REP;
  const segments: [number, number][] = [
    [0x26, SREG.ES],
    [0x2e, SREG.CS],
    [0x36, SREG.SS],
    [0x3e, SREG.DS],
    [0x64, SREG.FS],
    [0x65, SREG.GS],
  ];
  for (const [byte, segment] of segments) prefixes[byte] = PREFIX.SEGMENT | (segment << 4);
  for (let byte = 0x40; byte < 0x50; byte++) prefixes[byte] = PREFIX.REX;
  const address16 = new Uint8Array(8 * 4);
  ADDRESS_16.forEach(([base, index, stack], rm) => {
    address16.set([base * 8, index < 0 ? ZERO_OFFSET : index * 8, stack], rm * 4);
  });
  const entryBytes = new Uint8Array(entries.length * ENTRY.SIZE);
  const variants = new Uint16Array(entries.length * VARIANTS_PER_ENTRY);
  entries.forEach((entry, n) => {
    entryBytes.set(encodeEntry(entry, n * VARIANTS_PER_ENTRY), n * ENTRY.SIZE);
    variants.set(entry.variants, n * VARIANTS_PER_ENTRY);
  });
  return {
    prefixes: place(prefixes),
    address16: place(address16),
    roots: place(new Uint8Array(maps.roots.buffer)),
    choices: place(new Uint8Array(maps.choices.buffer)),
    entries: place(entryBytes),
    variants: place(new Uint8Array(variants.buffer)),
    bytes: bytes.subarray(0, next),
  };
}

/** (record, low bits of the linear address) -> (length, ENTRY_FLAG.END and FALLS as they are); reads FETCH_BUFFER. */
function emitDecodeOne(m: ModuleBuilder, env: (c: Code) => Env, tables: DecodeTables): FuncRef {
  return m.func("decodeInstruction", ["i32", "i32"], ["i32", "i32"], (c) => {
    const { cpu } = env(c);
    const [record, low] = c.params;
    const p = c.local("i32", FETCH_BUFFER);
    const mode = c.let(cpu.ld32(0, VAR.CODE_MODE));
    const long = c.let(mode.eq(2));
    const operandSize = c.local("i32", 0);
    const addressSize = c.local("i32", 0);
    const repeat = c.local("i32", 0);
    const lock = c.local("i32", 0);
    const override = c.local("i32", -1);
    const rex = c.local("i32", 0);
    const byte = c.local("i32");

    const finish = (handler: number): void => {
      c.st16(cpu, record, handler, RECORD.HANDLER);
      c.st16(cpu, record, low.or(p.sub(FETCH_BUFFER).shl(12)), RECORD.PLACE);
      c.st8(cpu, record, mode.shl(2), RECORD.ADDRESSING);
      c.ret(p.sub(FETCH_BUFFER), ENTRY_FLAG.END);
    };
    const tooLong = (): void => {
      c.set(p, FETCH_BUFFER + MAX_LENGTH);
      finish(PSEUDO.TOO_LONG);
    };

    // Prefixes
    c.block((done) => {
      c.loop((head) => {
        c.set(byte, cpu.ld8u(p));
        const kind = c.let(cpu.ld8u(byte, tables.prefixes));
        c.brIf(done, kind.eqz(), "likely");
        c.brIf(done, kind.eq(PREFIX.REX).and(long.eqz()));
        c.set(p, p.add(1));
        c.if(p.geU(FETCH_BUFFER + MAX_LENGTH), tooLong, undefined, "unlikely");
        c.if(kind.eq(PREFIX.REX), () => {
          c.set(rex, byte);
          c.br(head);
        });
        // REX counts only right before the opcode (SDM Vol. 2A 2.2.1).
        c.set(rex, 0);
        c.switch(
          kind.and(7),
          [
            [[PREFIX.OPERAND_SIZE], () => c.set(operandSize, 1)],
            [[PREFIX.ADDRESS_SIZE], () => c.set(addressSize, 1)],
            [[PREFIX.LOCK], () => c.set(lock, 1)],
            [[PREFIX.REPNE], () => c.set(repeat, 3)],
            [[PREFIX.REP], () => c.set(repeat, 2)],
          ],
          () => {
            const segment = c.let(kind.shrU(4));
            // ES, CS, SS and DS overrides are ignored in 64-bit mode (SDM Vol. 2A 2.1.1).
            c.if(long.eqz().or(segment.geU(SREG.FS)), () => c.set(override, segment));
          },
        );
        c.br(head);
      });
    });

    // Opcode
    const map = c.local("i32", 0);
    c.set(p, p.add(1));
    c.if(byte.eq(0x0f), () => {
      c.set(byte, cpu.ld8u(p));
      c.set(p, p.add(1));
      c.set(map, 1);
      c.if(byte.eq(0x38).or(byte.eq(0x3a)), () => {
        c.set(map, select(byte.eq(0x38), i32(2), i32(3)));
        c.set(byte, cpu.ld8u(p));
        c.set(p, p.add(1));
      });
    });
    const column = select(repeat, repeat, operandSize);
    const root = long.shl(2).or(map).shl(2).or(column).shl(8).or(byte);
    const node = c.local("i32", cpu.ld16u(root.shl(1), tables.roots));
    const modrm = c.let(cpu.ld8u(p));
    const looked = c.local("i32", 0);
    c.loop((head) => {
      c.if(node.geU(1 << 14), () => {
        c.set(looked, 1);
        const field = c.local("i32");
        c.switch(
          node.shrU(14),
          [
            [[NODE.MOD], () => c.set(field, modrm.geU(0xc0))],
            [[NODE.REG], () => c.set(field, modrm.bits(3, 3))],
          ],
          () => c.set(field, modrm.and(7)),
        );
        c.set(node, cpu.ld16u(node.and(0x3fff).add(field).shl(1), tables.choices));
        c.br(head);
      });
    });
    c.if(
      node.eqz(),
      () => {
        c.set(p, p.add(looked));
        finish(PSEUDO.UNDEFINED);
      },
      undefined,
      "unlikely",
    );
    const entry = c.let(node.mul(ENTRY.SIZE));
    const info = (offset: number): Val => cpu.ld8u(entry, tables.entries + offset);
    const flags = c.let(info(ENTRY.FLAGS));

    // Sizes
    const small = c.let(select(mode.eqz(), operandSize.xor(1), operandSize));
    const rexW = c.let(rex.bits(3, 1));
    const size = c.local("i32");
    const legacySize = (): Val => small.xor(1);
    c.switch(
      info(ENTRY.OPSIZE),
      [
        [[OPSIZE.FIXED], () => c.set(size, 1)],
        [[OPSIZE.NORMAL], () => c.set(size, select(rexW, i32(2), legacySize()))],
        [
          [OPSIZE.DEFAULT_64],
          () => c.set(size, select(long, select(operandSize.and(rexW.eqz()), i32(0), i32(2)), legacySize())),
        ],
        [[OPSIZE.FORCE_64], () => c.set(size, select(long, i32(2), legacySize()))],
      ],
      () => c.set(size, rexW.add(1)),
    );
    const addressing = c.let(select(long, i32(2).sub(addressSize), select(mode, i32(1).sub(addressSize), addressSize)));

    /** Record byte of a register number. */
    const registerByte = (number: Val, kind: Val): Val => {
      const n = c.let(number);
      const k = c.let(kind);
      const high = k.eq(CLASS.GPR8).and(rex.eqz()).and(n.geU(4));
      const plain = select(k.eq(CLASS.MMX), n.and(7).shl(3), n.shl(3));
      return select(k.eq(CLASS.NUMBER), n, select(high, n.sub(4).shl(3).add(1), plain));
    };

    const a = c.local("i32", 0);
    const b = c.local("i32", ZERO_OFFSET);
    const index = c.local("i32", ZERO_OFFSET);
    const scale = c.local("i32", 0);
    const disp = c.local("i32", 0);
    const segment = c.local("i32", SREG.DS);
    const form = c.local("i32");
    const ripRelative = c.local("i32", 0);
    c.set(form, select(long, i32(FORM.REGISTER), i32(FORM.REGISTER_ANY)));
    const source = c.let(info(ENTRY.A_SOURCE));
    c.if(source.eq(SOURCE.REG), () =>
      c.set(a, registerByte(modrm.bits(3, 3).or(rex.and(4).shl(1)), info(ENTRY.A_CLASS))),
    );
    c.if(source.eq(SOURCE.OPCODE), () =>
      c.set(a, registerByte(byte.and(7).or(rex.and(1).shl(3)), info(ENTRY.A_CLASS))),
    );

    c.if(
      flags.and(ENTRY_FLAG.MODRM),
      () => {
        c.set(p, p.add(1));
        const mod = c.let(select(flags.and(ENTRY_FLAG.RM_ONLY), i32(3), modrm.shrU(6)));
        const rm = c.let(modrm.and(7));
        c.if(
          mod.eq(3),
          () => {
            c.set(b, registerByte(rm.or(rex.and(1).shl(3)), info(ENTRY.B_CLASS)));
            // MASKMOVQ has its memory operand elsewhere.
            c.if(override.geS(0), () => c.set(segment, override));
          },
          () => {
            c.if(
              addressing.eqz(),
              () => {
                const pair = c.let(rm.shl(2));
                c.set(b, cpu.ld8u(pair, tables.address16));
                c.set(index, cpu.ld8u(pair, tables.address16 + 1));
                c.if(cpu.ld8u(pair, tables.address16 + 2), () => c.set(segment, SREG.SS));
                c.if(rm.eq(6).and(mod.eqz()), () => {
                  c.set(b, ZERO_OFFSET);
                  c.set(segment, SREG.DS);
                });
                c.if(mod.eq(1), () => {
                  c.set(disp, cpu.ld8s(p));
                  c.set(p, p.add(1));
                });
                c.if(mod.eq(2).or(rm.eq(6).and(mod.eqz())), () => {
                  c.set(disp, cpu.ld16s(p));
                  c.set(p, p.add(2));
                });
              },
              () => {
                const base = c.local("i32", rm.or(rex.and(1).shl(3)));
                const noBase = c.local("i32", 0);
                c.if(
                  rm.eq(4),
                  () => {
                    const sib = c.let(cpu.ld8u(p));
                    c.set(p, p.add(1));
                    c.set(base, sib.and(7).or(rex.and(1).shl(3)));
                    c.set(scale, sib.shrU(6));
                    const indexNumber = c.let(sib.bits(3, 3).or(rex.and(2).shl(2)));
                    c.set(index, select(indexNumber.eq(4), i32(ZERO_OFFSET), indexNumber.shl(3)));
                    c.set(noBase, sib.and(7).eq(5).and(mod.eqz()));
                  },
                  () => {
                    c.if(rm.eq(5).and(mod.eqz()), () => {
                      c.set(noBase, 1);
                      c.set(ripRelative, long);
                    });
                  },
                );
                c.set(b, base.shl(3));
                c.if(base.eq(4).or(base.eq(5)), () => c.set(segment, SREG.SS));
                c.if(noBase, () => {
                  c.set(segment, SREG.DS);
                  c.set(b, select(ripRelative, i32(RIP_BASE.offset), i32(ZERO_OFFSET)));
                });
                c.if(mod.eq(1), () => {
                  c.set(disp, cpu.ld8s(p));
                  c.set(p, p.add(1));
                });
                c.if(mod.eq(2).or(noBase), () => {
                  c.set(disp, cpu.ld32(p));
                  c.set(p, p.add(4));
                });
              },
            );
            c.if(override.geS(0), () => c.set(segment, override));
            c.set(
              form,
              select(
                addressing.eq(2),
                select(
                  segment.geU(SREG.FS),
                  i32(FORM.SEGMENT),
                  select(index.eq(ZERO_OFFSET), i32(FORM.BASE), i32(FORM.INDEX)),
                ),
                i32(FORM.ANY),
              ),
            );
            c.if(lock, () => c.set(form, FORM.LOCKED));
          },
        );
      },
      () => {
        c.if(override.geS(0), () => c.set(segment, override));
      },
    );

    // Features that the CPU model lacks.
    const feature = c.let(info(ENTRY.FEATURE));
    const absent = feature.ne(255).and(cpu.ld8u(feature.shrU(3), FEATURE_MAP).shrU(feature.and(7)).and(1).eqz());
    c.if(absent, () => finish(PSEUDO.UNDEFINED), undefined, "unlikely");

    // Immediates
    const immediate = c.local("i32", 0);
    const take = (value: Val, bytes: number): void => {
      c.set(immediate, value);
      c.set(p, p.add(bytes));
    };
    const bySize = (): void =>
      c.if(
        size.eqz(),
        () => take(cpu.ld16s(p), 2),
        () => take(cpu.ld32(p), 4),
      );
    const kind = c.let(info(ENTRY.IMMEDIATE));
    c.switch(
      kind,
      [
        [[IMMEDIATE.NONE], () => undefined],
        [[IMMEDIATE.UNSIGNED_8], () => take(cpu.ld8u(p), 1)],
        [[IMMEDIATE.SIGNED_8], () => take(cpu.ld8s(p), 1)],
        [[IMMEDIATE.WORD], () => take(cpu.ld16u(p), 2)],
        [[IMMEDIATE.BY_SIZE], bySize],
        [
          [IMMEDIATE.FULL],
          () => {
            c.if(
              size.eq(2),
              () => {
                c.set(disp, cpu.ld32(p));
                c.set(p, p.add(4));
                take(cpu.ld32(p), 4);
              },
              bySize,
            );
          },
        ],
        [
          [IMMEDIATE.OFFSET],
          () => {
            c.set(form, FORM.ANY);
            c.switch(
              addressing,
              [
                [
                  [0],
                  () => {
                    c.set(disp, cpu.ld16u(p));
                    c.set(p, p.add(2));
                  },
                ],
                [
                  [1],
                  () => {
                    c.set(disp, cpu.ld32(p));
                    c.set(p, p.add(4));
                  },
                ],
              ],
              () => {
                c.set(disp, cpu.ld32(p));
                c.set(p, p.add(4));
                take(cpu.ld32(p), 4);
              },
            );
          },
        ],
        [
          [IMMEDIATE.FAR],
          () => {
            c.if(
              size.eqz(),
              () => {
                c.set(disp, cpu.ld16u(p));
                c.set(p, p.add(2));
              },
              () => {
                c.set(disp, cpu.ld32(p));
                c.set(p, p.add(4));
              },
            );
            take(cpu.ld16u(p), 2);
          },
        ],
      ],
      () => take(cpu.ld16u(p).or(cpu.ld8u(p, 2).shl(16)), 3),
    );
    const length = c.let(p.sub(FETCH_BUFFER));
    c.if(length.gtU(MAX_LENGTH), tooLong, undefined, "unlikely");
    // LOCK on what does not take it, or without a memory destination (SDM Vol. 2A LOCK).
    const badLock = lock.and(form.ne(FORM.LOCKED).or(flags.and(ENTRY_FLAG.LOCK).eqz()));
    c.if(badLock, () => finish(PSEUDO.UNDEFINED), undefined, "unlikely");
    c.if(ripRelative, () => {
      // The displacement is made relative to RIP_BASE. Where that does not fit, the scale bits, which mean nothing without an index, say so.
      const fromBase = c.let(disp.add(low).add(length));
      c.if(
        fromBase.geS(disp),
        () => c.set(disp, fromBase),
        () => {
          c.set(scale, 1);
          c.if(form.ne(FORM.LOCKED), () => c.set(form, FORM.ANY));
        },
        "likely",
      );
    });
    const variant = c.let(
      cpu
        .ld32(entry, tables.entries + ENTRY.VARIANTS)
        .add(size.mul(FORM.COUNT))
        .add(form),
    );
    c.st16(cpu, record, cpu.ld16u(variant.shl(1), tables.variants), RECORD.HANDLER);
    c.st8(cpu, record, a, RECORD.A);
    c.st8(cpu, record, b, RECORD.B);
    c.st8(cpu, record, index, RECORD.C);
    c.st8(cpu, record, scale.or(addressing.shl(2)).or(segment.shl(4)).or(size.eqz().shl(7)), RECORD.ADDRESSING);
    c.st16(cpu, record, low.or(length.shl(12)), RECORD.PLACE);
    c.st32(cpu, record, disp, RECORD.DISP);
    c.st32(cpu, record, immediate, RECORD.IMM);
    c.ret(length, flags.and(ENTRY_FLAG.END | ENTRY_FLAG.FALLS));
    c.unreachable();
  });
}

/** (linear, host, most instructions, block) -> status: fills the block's records, COUNT, LENGTH, HOST2 and LAST; 1 where a fetch faulted. */
export function emitDecoder(
  m: ModuleBuilder,
  env: (c: Code) => Env,
  tables: DecodeTables,
  decode: FuncRef,
  translateFetch: FuncRef,
): void {
  const decodeOne = emitDecodeOne(m, env, tables);
  m.define(decode, (c) => {
    const { cpu, ram } = env(c);
    const [linear, host, most, block] = c.params;
    const record = c.local("i32", block.add(BLOCK.SIZE));
    const at = c.local("i32", host);
    const count = c.local("i32", 0);
    const ended = c.local("i32", 0);
    c.st32(cpu, block, 0, BLOCK.HOST2);
    c.block((done) => {
      c.loop((head) => {
        const low = c.let(at.and(0xfff));
        const room = c.let(i32(0x1000).sub(low));
        const length = c.local("i32");
        const decodeIt = (): void => {
          const [bytes, ends] = c.callMany(decodeOne, [record, low]);
          c.set(length, bytes);
          c.set(ended, ends);
        };
        const copyBytes = (to: Val, from: Val, bytes: Val): void => c.memoryCopy(cpu, to, ram, from, bytes);
        c.if(
          room.geU(16),
          () => {
            c.st64(cpu, 0, ram.ld64(at), FETCH_BUFFER);
            c.st64(cpu, 0, ram.ld64(at, 8), FETCH_BUFFER + 8);
            decodeIt();
          },
          () => {
            c.st64(cpu, 0, 0, FETCH_BUFFER);
            c.st64(cpu, 0, 0, FETCH_BUFFER + 8);
            copyBytes(i32(FETCH_BUFFER), at, room);
            decodeIt();
            c.if(length.gtU(room), () => {
              // The instruction needs bytes of the next page: it gets a block of its own, since that page's mapping is not this one's.
              c.if(count, () => {
                c.set(ended, 0);
                c.br(done);
              });
              const [status, second] = c.callMany(translateFetch, [linear.and(-4096n).add(4096n)]);
              c.if(status, () => c.ret(1));
              copyBytes(i32(FETCH_BUFFER).add(room), second, i32(16).sub(room));
              decodeIt();
              c.if(length.gtU(room), () => c.st32(cpu, block, second.and(-4096), BLOCK.HOST2));
            });
          },
          "likely",
        );
        c.set(at, at.add(length));
        c.set(count, count.add(1));
        c.set(record, record.add(RECORD.SIZE));
        c.brIf(done, ended.or(count.geU(most)).or(length.geU(room)));
        c.br(head);
      });
    });
    c.if(ended.ne(ENTRY_FLAG.END), () => {
      // Goes on behind the last instruction; it borrows that one's place.
      c.st16(cpu, record, PSEUDO.FALL_THROUGH, RECORD.HANDLER);
      c.st16(cpu, record, cpu.ld16u(record.sub(RECORD.SIZE), RECORD.PLACE), RECORD.PLACE);
      c.st8(cpu, record, cpu.ld8u(record.sub(RECORD.SIZE), RECORD.ADDRESSING), RECORD.ADDRESSING);
      c.set(record, record.add(RECORD.SIZE));
    });
    const last = c.let(record.sub(RECORD.SIZE));
    c.st64(cpu, last, 0, TAIL.NOT_TAKEN);
    c.st64(cpu, last, 0, TAIL.TAKEN);
    c.st32(cpu, block, last, BLOCK.LAST);
    c.st32(cpu, block, count, BLOCK.COUNT);
    c.st32(cpu, block, at.sub(host), BLOCK.LENGTH);
    c.st32(cpu, 0, cpu.ld32(0, VAR.COUNT_DECODED).add(count), VAR.COUNT_DECODED);
    c.results([0]);
  });
}
