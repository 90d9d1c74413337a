// PVH: an ELF kernel entered in 32-bit protected mode at the address in its Xen note, with a hvm_start_info structure.
// Xen's docs/misc/pvh.pandoc and xen/include/public/arch-x86/hvm/start_info.h; the note's number: xen/include/public/elfnote.h.

import { RecordWriter } from "../firmware/record.ts";
import { protectedModeState } from "./cpu-state.ts";
import { type Elf, elfNotes, isLoaded, parseElf, placeSegments } from "./elf.ts";
import { BootError, hex } from "./errors.ts";
import { type BootConfig, type BootImage, type BootModule, cString } from "./image.ts";
import { LOADER_DATA_BASE, Placement } from "./placement.ts";
import { Reader } from "./reader.ts";

const XEN_ELFNOTE_PHYS32_ENTRY = 18;
const START_MAGIC = 0x336ec578;
const VERSION = 1;
const PAGE = 0x1000;
const FOUR_GIB = 0x100000000;
const anywhere = { align: 16, min: LOADER_DATA_BASE, max: FOUR_GIB };

/** The physical address that the kernel wants to be entered at; undefined where it has no PVH note. */
export function pvhEntry(elf: Elf): number | undefined {
  const note = elfNotes(elf).find(({ name, type }) => name === "Xen" && type === XEN_ELFNOTE_PHYS32_ENTRY);
  if (note === undefined) return undefined;
  const reader = new Reader(note.desc, "the kernel's PVH note");
  const entry = note.desc.length >= 8 ? reader.u64(0) : BigInt(reader.u32(0));
  if (entry >= BigInt(FOUR_GIB) || !isLoaded(elf, entry)) {
    throw new BootError(
      `the kernel's PVH entry point ${hex(entry)} lies outside of what it loads; copy or download it again`,
    );
  }
  return Number(entry);
}

export function loadPvh(kernel: Uint8Array, config: BootConfig): BootImage {
  const elf = parseElf(kernel);
  const entry = pvhEntry(elf);
  if (entry === undefined) {
    throw new BootError(
      "the ELF kernel has neither a PVH note nor a Multiboot header; use the bzImage (vmlinuz), or build Linux with CONFIG_PVH",
    );
  }
  const placement = new Placement(config.e820);
  placeSegments(elf, placement);

  const initrd: BootModule[] = config.initrd && config.initrd.length > 0 ? [{ bytes: config.initrd, text: "" }] : [];
  const modules = [...initrd, ...(config.modules ?? [])];
  const list = new RecordWriter();
  modules.forEach(({ bytes, text }, i) => {
    const what = i < initrd.length ? "the initrd" : `module "${text}"`;
    const at = placement.put(what, bytes, { align: PAGE, max: FOUR_GIB, high: true });
    const textAt = text === "" ? 0 : placement.put("a module's text", cString(text, "module's text"), anywhere);
    list.u64(at, bytes.length, textAt, 0);
  });
  const listAt = modules.length === 0 ? 0 : placement.put("the module list", list.finish(), anywhere);
  const commandLineAt = placement.put("the command line", cString(config.commandLine, "command line"), anywhere);
  const map = new RecordWriter();
  for (const { base, length, type } of config.e820) map.u64(base, length).u32(type, 0);
  const mapAt = placement.put("the memory map", map.finish(), anywhere);

  const info = new RecordWriter().u32(START_MAGIC, VERSION, 0, modules.length);
  info.u64(listAt, commandLineAt, config.rsdp, mapAt).u32(config.e820.length, 0);
  const infoAt = placement.put("hvm_start_info", info.finish(), anywhere);
  return {
    protocol: "pvh",
    zeros: placement.zeros,
    writes: placement.writes,
    cpu: protectedModeState(entry, { rbx: BigInt(infoAt) }),
  };
}
