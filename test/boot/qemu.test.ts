// Debian's kernel under QEMU, booted by our loaders with our tables instead of QEMU's firmware: it must find processors, interrupts, PCI and
// power-off through them. Needs QEMU, binutils and the kernel in the cache; skipped without.

import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { loadKernel } from "../../src/boot/kernel.ts";
import { buildFirmware } from "../../src/firmware/firmware.ts";
import { RecordWriter } from "../../src/firmware/record.ts";
import { apicIds, firmwareConfig, hasTool } from "../firmware/machine.ts";
import { assemble, run, runInQemu } from "./qemu-machine.ts";
import { debianKernel, elf, multibootHeader, pvhNote } from "./samples.ts";

const directory = mkdtempSync(join(tmpdir(), "skep-qemu-"));
after(() => rmSync(directory, { recursive: true, force: true }));
const tools = (await hasTool("qemu-system-x86_64")) && (await hasTool("as")) && (await hasTool("ld"));
const noTools = tools ? false : "QEMU (qemu-system-x86) or binutils is not installed";
const kernel = debianKernel();
const MEMORY_MIB = 512;
const CPUS = 2;

// QEMU's soft-off is SLP_TYP 0.
const firmware = () => buildFirmware(firmwareConfig({ cpus: apicIds(CPUS), s5SleepType: 0 }));

/** A cpio archive (newc) with one executable, /init. */
function initramfs(init: Uint8Array): Uint8Array {
  const out = new RecordWriter();
  const file = (name: string, mode: number, bytes: Uint8Array) => {
    const fields = [1, mode, 0, 0, 1, 0, bytes.length, 0, 0, 0, 0, name.length + 1, 0];
    out.text("070701").text(fields.map((f) => f.toString(16).padStart(8, "0")).join(""));
    out
      .text(name)
      .u8(0)
      .padTo(Math.ceil(out.length / 4) * 4);
    out.bytes(bytes).padTo(Math.ceil(out.length / 4) * 4);
  };
  file("init", 0o100755, init);
  file("TRAILER!!!", 0, new Uint8Array(0));
  return out.finish();
}

/** Says hello on the console and powers off: reboot(LINUX_REBOOT_CMD_POWER_OFF). */
const INIT = `
  .globl _start
  _start:
  movl $1, %eax; movl $1, %edi; movq $text, %rsi; movl $15, %edx; syscall
  movl $169, %eax; movl $0xfee1dead, %edi; movl $672274793, %esi; movl $0x4321fedc, %edx; syscall
  text: .ascii "init is running\\n"
`;

const noKernel = noTools || (kernel === undefined ? "Debian's kernel is not in the cache" : false);

test("Debian's kernel boots, likes the tables and powers off", { skip: noKernel, timeout: 120_000 }, async () => {
  assert.ok(kernel);
  assemble(directory, "init", INIT, 0x400000);
  run(directory, "strip", "init.elf");
  const fw = firmware();
  const image = loadKernel(kernel, {
    e820: fw.e820,
    rsdp: fw.rsdp,
    commandLine: "console=ttyS0 panic=-1",
    initrd: initramfs(readFileSync(join(directory, "init.elf"))),
  });
  const { output, status } = await runInQemu({
    directory,
    firmware: fw,
    image,
    memoryMiB: MEMORY_MIB,
    cpus: CPUS,
    timeoutMs: 100_000,
  });
  if (process.env.SKEP_SHOW) console.log(output);
  assert.equal(status, 0, output.slice(-2000));
  for (const wanted of [
    /Command line: console=ttyS0 panic=-1/,
    /BIOS-e820: \[mem 0x0000000000100000-0x000000001fff[0-9a-f]{4}\] usable/,
    /DMI: skep skep PC, BIOS 1 01\/01\/2026/,
    /ACPI: RSDP 0x00000000000E0000 000024 \(v02 SKEP/,
    /ACPI: FACP 0x[0-9A-F]+ 000114 \(v06/,
    /smpboot: Allowing 2 CPUs/,
    /Brought up 1 node, 2 CPUs/,
    /PCI: MMCONFIG for domain 0000 \[bus 00-ff\] at \[mem 0xe0000000-0xefffffff\]/,
    /ACPI: PCI Root Bridge \[PCI0\] \(domain 0000 \[bus 00-ff\]\)/,
    /00:0[0-9]: ttyS0 at I\/O 0x3f8 \(irq = 4/,
    /init is running/,
    /reboot: Power down/,
  ]) {
    assert.match(output, wanted);
  }
  assert.doesNotMatch(
    output,
    /Firmware (Bug|Warn)|ACPI (Error|BIOS Error|Warning|Exception)|BIOS BUG|invalid checksum|AE_[A-Z]+_/i,
  );
});

/** Prints the name that the loader or the module list gives, and resets through port CF9h. */
const SMALL_KERNEL = `
  .globl _start
  .code32
  _start:
  PROLOGUE
  print:
  lodsb
  testb %al, %al
  jz done
  movw $0x3f8, %dx
  outb %al, %dx
  jmp print
  done:
  movw $0xcf9, %dx; movb $6, %al; outb %al, %dx
  hlt
`;

function smallKernel(name: string, prologue: string, base: number): Uint8Array {
  assemble(directory, name, SMALL_KERNEL.replace("PROLOGUE", prologue), base);
  run(directory, "objcopy", "-O", "binary", `${name}.elf`, `${name}.code`);
  return readFileSync(join(directory, `${name}.code`));
}

const MODULES = [{ bytes: new TextEncoder().encode("contents of the module\0"), text: "module arguments" }];

test("a PVH kernel finds its module", { skip: noTools, timeout: 60_000 }, async () => {
  const fw = firmware();
  const body = smallKernel("pvh", "movl 16(%ebx), %esi; movl (%esi), %esi", 0x100000);
  const config = { e820: fw.e820, rsdp: fw.rsdp, commandLine: "", modules: MODULES };
  const image = loadKernel(elf({ body, notes: pvhNote(0x100000) }), config);
  const { output } = await runInQemu({ directory, firmware: fw, image, memoryMiB: MEMORY_MIB, timeoutMs: 40_000 });
  assert.match(output, /contents of the module/);
});

test("a Multiboot kernel finds its module's text", { skip: noTools, timeout: 60_000 }, async () => {
  const fw = firmware();
  const code = smallKernel("multiboot", "movl 24(%ebx), %esi; movl 8(%esi), %esi", 0x10000c);
  const body = new RecordWriter().bytes(multibootHeader(3)).bytes(code).finish();
  const config = { e820: fw.e820, rsdp: fw.rsdp, commandLine: "", modules: MODULES };
  const image = loadKernel(elf({ bits: 32, body, entry: 0x10000cn }), config);
  const { output } = await runInQemu({ directory, firmware: fw, image, memoryMiB: MEMORY_MIB, timeoutMs: 40_000 });
  assert.match(output, /module arguments/);
});
