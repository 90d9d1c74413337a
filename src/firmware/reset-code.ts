// What is at the reset vector. A processor that takes an INIT while it is the bootstrap processor starts at FFFF:FFF0, in the ROM below 4 GiB
// (SDM Vol. 3A 9.1.4, 9.4.2), whose last 64 KiB are also at F000:0000. There PCs jump to code that looks why: the shutdown byte, 0FH of the
// CMOS RAM, lets a program come back through 0040:0067 after a reset (IBM PC AT Technical Reference, "Shutdown"; MP specification 1.4, B.4,
// which starts processors that way).
// Nothing but that is here: where the byte asks for nothing the machine is reset, by the register of ICH9 data sheet 13.7.5.

import { RecordWriter } from "./record.ts";

/** The segment in which the processor goes on, and where the code lies in it. */
const SEGMENT = 0xf000;
const CODE = 0xff00;
const VECTOR = 0xfff0;

/** Where the ROM's last 64 KiB are, and where they are seen a second time. */
export const ROM_BASE = 0xffff0000;
export const ROM_LENGTH = 0x10000;
export const ROM_SHADOW = SEGMENT << 4;
/** From here to the end of the shadow nothing else may lie. */
export const RESET_CODE_BASE = ROM_SHADOW + CODE;

// biome-ignore format: an instruction a line
const RESUME = [
  0xfa,                         // 00: cli
  0xfc,                         // 01: cld
  0xb0, 0x8f, 0xe6, 0x70,       // 02: al = in(0x71) of the shutdown byte, with NMIs off
  0xe4, 0x71,                   // 06
  0x88, 0xc4,                   // 08: ah = al
  0xb0, 0x0f, 0xe6, 0x70,       // 0a: the byte is good for once, and NMIs are on
  0x30, 0xc0, 0xe6, 0x71,       // 0e
  0xbb, 0x40, 0x00, 0x8e, 0xdb, // 12: ds = 0040
  0x80, 0xfc, 0x05, 0x74, 0x1b, // 17: 5: eoi, jump
  0x80, 0xfc, 0x0a, 0x74, 0x1c, // 1c: A: jump
  0x80, 0xfc, 0x0b, 0x74, 0x1b, // 21: B: iret
  0x80, 0xfc, 0x0c, 0x74, 0x1c, // 26: C: far return
  0xba, 0xf9, 0x0c,             // 2b: out(0xcf9, 2), out(0xcf9, 6): reset
  0xb0, 0x02, 0xee,             // 2e
  0xb0, 0x06, 0xee,             // 31
  0xf4, 0xeb, 0xfd,             // 34: hlt, for ever
  0xb0, 0x20, 0xe6, 0xa0,       // 37: eoi: out(0xa0, 0x20), out(0x20, 0x20)
  0xe6, 0x20,                   // 3b
  0xff, 0x2e, 0x67, 0x00,       // 3d: jump: far, to what is at 0040:0067
  0x0f, 0xb2, 0x26, 0x67, 0x00, // 41: iret: ss:sp = what is at 0040:0067
  0xcf,                         // 46
  0x0f, 0xb2, 0x26, 0x67, 0x00, // 47: far return: ss:sp = what is at 0040:0067
  0xcb,                         // 4c
];

/** What lies from RESET_CODE_BASE on: the code, the jump to it, and the date and the model (FCH: an AT) that a PC's ROM ends with. */
export function buildResetCode(): Uint8Array {
  const rom = new RecordWriter().u8(...RESUME).padTo(VECTOR - CODE);
  rom.u8(0xea).u16(CODE, SEGMENT).text("01/01/26").u8(0, 0xfc, 0);
  return rom.finish();
}
