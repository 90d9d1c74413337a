// Starts QEMU from a BootImage: an outside authority on whether firmware tables and processor state are what a kernel needs.
// A ROM of our own takes the processor from reset into the state that the loader asks for; QEMU's generic loader fills memory.

import { spawn, spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { BootImage } from "../../src/boot/image.ts";
import type { Firmware } from "../../src/firmware/firmware.ts";

const ROM_LENGTH = 0x20000;
const CODE_OFFSET = 0x1f000;
const CODE_BASE = 0x100000000 - ROM_LENGTH + CODE_OFFSET;

/** Runs a tool and fails loudly. */
export function run(directory: string, command: string, ...args: string[]): void {
  const done = spawnSync(command, args, { cwd: directory, encoding: "utf8", timeout: 30_000 });
  if (done.status !== 0) throw new Error(`${command} failed: ${done.stderr}`);
}

/** Assembles and links `source` at `base` into `name`.elf. */
export function assemble(
  directory: string,
  name: string,
  source: string,
  base: number,
  ...linkerOptions: string[]
): void {
  writeFileSync(join(directory, `${name}.s`), source);
  run(directory, "as", "--64", "-o", `${name}.o`, `${name}.s`);
  run(
    directory,
    "ld",
    ...linkerOptions,
    "-e",
    "_start",
    "-Ttext",
    `0x${base.toString(16)}`,
    "-o",
    `${name}.elf`,
    `${name}.o`,
  );
}

/**
 * The q35 board's chip set needs what a BIOS would do: PMBASE (ICH9 31:0, 40h and ACPI_CNTL 44h), PCIEXBAR (MCH 0:0, 60h), and SCI_EN,
 * which this machine's tables take for granted.
 */
const PCI_SETUP: readonly [address: number, value: number][] = [
  [0x8000f840, 0x601],
  [0x8000f844, 0x80],
  [0x80000060, 0xe0000001],
];

function romSource(image: BootImage): string {
  const { cpu } = image;
  const h = (value: bigint | number) => `0x${value.toString(16)}`;
  const out32 = (port: number, value: number) => `movw $${h(port)}, %dx; movl $${h(value)}, %eax; outl %eax, %dx`;
  const longMode = (cpu.efer & 0x100n) !== 0n;
  const data = cpu.segments.ds.selector;
  const loadSegments = (selector: number) =>
    [`movw $${h(selector)}, %ax`, ...["ds", "es", "ss", "fs", "gs"].map((s) => `movw %ax, %${s}`)].join("; ");
  const enter64 = `
    movl $${h(cpu.cr4)}, %eax; movl %eax, %cr4
    movl $${h(cpu.cr3)}, %eax; movl %eax, %cr3
    movl $0xc0000080, %ecx; movl $0x100, %eax; xorl %edx, %edx; wrmsr
    movl $${h(cpu.cr0)}, %eax; movl %eax, %cr0
    lgdtl target_gdtr
    ljmpl $${h(cpu.segments.cs.selector)}, $long_mode
    .code64
    long_mode:
    ${loadSegments(data)}
    movq $${h(cpu.gprs.rsi)}, %rsi
    movabsq $${h(cpu.rip)}, %rax
    jmp *%rax`;
  const enter32 = `
    movl $${h(cpu.gprs.rax)}, %eax
    movl $${h(cpu.gprs.rbx)}, %ebx
    movl $${h(cpu.rip)}, %ecx
    jmp *%ecx`;
  return `
    .globl _start
    .code16
    _start:
    cli
    ${PCI_SETUP.map(([address, value]) => `${out32(0xcf8, address)}; ${out32(0xcfc, value)}`).join("\n")}
    movw $0x604, %dx; movw $1, %ax; outw %ax, %dx
    lgdtl %cs:(rom_gdtr - ${h(0xffff0000)})
    movl $0x11, %eax; movl %eax, %cr0
    ljmpl $0x08, $protected
    .code32
    protected:
    ${loadSegments(0x10)}
    ${longMode ? enter64 : enter32}
    .balign 16
    gdt: .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
    rom_gdtr: .word 23; .long gdt
    target_gdtr: .word ${cpu.gdtr.limit}; .long ${h(cpu.gdtr.base)}
  `;
}

export interface QemuRun {
  readonly output: string;
  /** Undefined when it had to be ended. */
  readonly status: number | null;
}

export interface QemuOptions {
  readonly directory: string;
  readonly firmware: Firmware;
  readonly image: BootImage;
  readonly memoryMiB: number;
  readonly cpus?: number;
  readonly timeoutMs: number;
}

/** Runs until the guest powers off or resets, or time is up; what came out of COM1. */
export async function runInQemu(options: QemuOptions): Promise<QemuRun> {
  const { directory, image, firmware } = options;
  assemble(directory, "rom", romSource(image), CODE_BASE);
  run(directory, "objcopy", "-O", "binary", "rom.elf", "rom.code");
  const rom = new Uint8Array(ROM_LENGTH);
  rom.set(readFileSync(join(directory, "rom.code")), CODE_OFFSET);
  const args = [
    "-machine",
    "q35,accel=tcg",
    "-m",
    `${options.memoryMiB}M`,
    "-smp",
    String(options.cpus ?? 1),
    "-nodefaults",
  ];
  // QEMU drops characters where a pipe has no room for them, as under load.
  const serial = join(directory, "serial");
  writeFileSync(serial, "");
  args.push("-display", "none", "-no-reboot", "-serial", `file:${serial}`, "-bios", join(directory, "rom.bin"));
  [...firmware.writes, ...image.writes].forEach(({ gpa, bytes }, i) => {
    // What belongs into the BIOS area is part of the ROM, which covers it.
    if (gpa >= 0xe0000 && gpa < 0x100000) {
      rom.set(bytes, gpa - 0xe0000);
      return;
    }
    const file = join(directory, `write${i}`);
    writeFileSync(file, bytes);
    args.push("-device", `loader,file=${file},addr=0x${gpa.toString(16)},force-raw=on`);
  });
  // A near jump at the reset vector, relative to the byte after it, in the place of the firmware's own.
  const distance = CODE_OFFSET - (ROM_LENGTH - 16 + 3);
  rom.set([0xe9, distance & 0xff, (distance >> 8) & 0xff], ROM_LENGTH - 16);
  writeFileSync(join(directory, "rom.bin"), rom);
  const child = spawn("qemu-system-x86_64", args, { stdio: ["ignore", "ignore", "pipe"] });
  let errors = "";
  child.stderr.on("data", (data) => {
    errors += data;
  });
  const timer = setTimeout(() => child.kill("SIGKILL"), options.timeoutMs);
  const status = await new Promise<number | null>((resolve, reject) => {
    child.on("close", resolve);
    child.on("error", reject);
  });
  clearTimeout(timer);
  return { output: readFileSync(serial, "latin1") + errors, status };
}
