// Linux bzImage by the 64-bit boot protocol: Documentation/arch/x86/boot.rst of the kernel, "64-bit Boot Protocol".
//
//   low memory    boot_params, command line, setup_data, GDT, page tables
//   pref_address  the protected-mode code, with init_size bytes kept free for it to unpack itself
//   as high as initrd_addr_max and RAM allow: the initrd

import type { E820Entry } from "../firmware/e820.ts";
import { RecordWriter } from "../firmware/record.ts";
import { CR0, CR4, EFER, flatDescriptor, flatSegments, gprs, type InitialCpuState, RFLAGS_RESET } from "./cpu-state.ts";
import { BootError, hex, sizeText } from "./errors.ts";
import { IDENTITY_MAP_END, IDENTITY_MAP_LENGTH, identityMap } from "./identity-map.ts";
import { type BootConfig, type BootImage, cString } from "./image.ts";
import { BOOT_PARAMS, ENTRY_64_OFFSET, HEADER, type LinuxHeader, parseLinuxHeader } from "./linux-header.ts";
import { LOADER_DATA_BASE, Placement } from "./placement.ts";

const PAGE = 0x1000;
const LOW_MEMORY_END = 0x9f000;
const FOUR_GIB = 0x100000000;
const LOADER_UNDEFINED = 0xff;
const BOOT_CS = 0x10;
const BOOT_DS = 0x18;
const GDT_LIMIT = 4 * 8 - 1;
const SETUP_E820_EXT = 1;
const SETUP_RNG_SEED = 9;

const low = (align: number) => ({ align, min: LOADER_DATA_BASE, max: LOW_MEMORY_END });

function placeKernel(header: LinuxHeader, placement: Placement): number {
  const { preferredAddress, initSize, relocatable, alignment } = header;
  const what = `the Linux kernel (${sizeText(initSize)} when unpacked)`;
  let at: number | undefined = preferredAddress;
  if (relocatable) {
    // A kernel below its preferred address moves itself up to it, so only places from there on help.
    const wanted = { length: initSize, min: preferredAddress, max: IDENTITY_MAP_END };
    at = placement.find({ ...wanted, align: alignment });
  }
  if (at === undefined) {
    throw new BootError(
      `${what} needs free memory from ${hex(preferredAddress)} on (RAM: ${sizeText(placement.ramBytes)}); give the machine more memory`,
    );
  }
  placement.claim(at, initSize, what);
  placement.write(at, header.code);
  return at;
}

function placeInitrd(header: LinuxHeader, initrd: Uint8Array, placement: Placement): number {
  const wanted = { align: PAGE, high: true };
  const below = placement.find({ ...wanted, length: initrd.length, max: header.initrdEnd });
  if (below === undefined && header.initrdAbove4G) return placement.put("the initrd", initrd, wanted);
  return placement.put("the initrd", initrd, { ...wanted, max: header.initrdEnd });
}

function e820Record(entries: readonly E820Entry[]): Uint8Array {
  const out = new RecordWriter();
  for (const { base, length, type } of entries) out.u64(base, length).u32(type);
  return out.finish();
}

/** A chain of setup_data nodes: next, type, length, data. The result is the address of the first, or zero. */
function placeSetupData(nodes: readonly { type: number; data: Uint8Array }[], placement: Placement): number {
  return nodes.reduce((next, { type, data }) => {
    const node = new RecordWriter().u64(next).u32(type, data.length).bytes(data);
    return placement.put("setup_data", node.finish(), low(16));
  }, 0);
}

function placeTables(placement: Placement): Pick<InitialCpuState, "cr3" | "gdtr" | "segments"> {
  const segments = flatSegments(64, BOOT_CS, BOOT_DS);
  const gdt = new RecordWriter().u64(0, 0, flatDescriptor(segments.cs), flatDescriptor(segments.ds));
  const gdtBase = placement.put("the GDT", gdt.finish(), low(16));
  const tables = identityMap(placement.allocate("the page tables", { ...low(PAGE), length: IDENTITY_MAP_LENGTH }));
  placement.write(tables.gpa, tables.bytes);
  return { cr3: BigInt(tables.gpa), gdtr: { base: BigInt(gdtBase), limit: GDT_LIMIT }, segments };
}

export function loadLinux(kernel: Uint8Array, config: BootConfig): BootImage {
  const header = parseLinuxHeader(kernel);
  if (config.modules !== undefined && config.modules.length > 0) {
    throw new BootError("a Linux kernel image takes no modules; pass its initramfs as initrd");
  }
  const commandLine = cString(config.commandLine, "command line");
  if (commandLine.length - 1 > header.commandLineSize) {
    throw new BootError(
      `the command line has ${commandLine.length - 1} bytes, and this kernel takes ${header.commandLineSize}; shorten it`,
    );
  }

  const placement = new Placement(config.e820);
  const loadAddress = placeKernel(header, placement);
  const zeroPageAt = placement.allocate("boot_params", { ...low(PAGE), length: BOOT_PARAMS.size });
  const commandLineAt = placement.put("the command line", commandLine, low(16));
  const initrd = config.initrd ?? new Uint8Array(0);
  const initrdAt = initrd.length > 0 ? placeInitrd(header, initrd, placement) : 0;
  const tables = placeTables(placement);

  const setupData: { type: number; data: Uint8Array }[] = [];
  const beyond = config.e820.slice(BOOT_PARAMS.maxE820);
  if (beyond.length > 0) setupData.push({ type: SETUP_E820_EXT, data: e820Record(beyond) });
  if (config.rngSeed !== undefined) setupData.push({ type: SETUP_RNG_SEED, data: config.rngSeed });
  const setupDataAt = placeSetupData(setupData, placement);

  const zeroPage = new Uint8Array(BOOT_PARAMS.size);
  const view = new DataView(zeroPage.buffer);
  zeroPage.set(header.bytes, HEADER.setup_sects);
  view.setUint8(HEADER.type_of_loader, LOADER_UNDEFINED);
  view.setUint32(HEADER.ramdisk_image, initrdAt % FOUR_GIB, true);
  view.setUint32(HEADER.ramdisk_size, initrd.length % FOUR_GIB, true);
  view.setUint32(BOOT_PARAMS.ext_ramdisk_image, Math.floor(initrdAt / FOUR_GIB), true);
  view.setUint32(BOOT_PARAMS.ext_ramdisk_size, Math.floor(initrd.length / FOUR_GIB), true);
  view.setUint32(HEADER.cmd_line_ptr, commandLineAt, true);
  view.setBigUint64(HEADER.setup_data, BigInt(setupDataAt), true);
  view.setBigUint64(BOOT_PARAMS.acpi_rsdp_addr, BigInt(config.rsdp), true);
  const direct = config.e820.slice(0, BOOT_PARAMS.maxE820);
  view.setUint8(BOOT_PARAMS.e820_entries, direct.length);
  zeroPage.set(e820Record(direct), BOOT_PARAMS.e820_table);
  placement.write(zeroPageAt, zeroPage);

  return {
    protocol: "linux64",
    zeros: placement.zeros,
    writes: placement.writes,
    cpu: {
      gprs: gprs({ rsi: BigInt(zeroPageAt) }),
      rip: BigInt(loadAddress + ENTRY_64_OFFSET),
      rflags: RFLAGS_RESET,
      cr0: CR0.PE | CR0.ET | CR0.NE | CR0.PG,
      cr4: CR4.PAE,
      efer: EFER.LME | EFER.LMA,
      idtr: { base: 0n, limit: 0 },
      ...tables,
    },
  };
}
