// The option table: parsing, mistakes, help.

import assert from "node:assert/strict";
import { test } from "node:test";
import { optionsHelp, parseOptions } from "../../src/cli/options.ts";
import { SkepError } from "../../src/errors.ts";
import { parseSize } from "../../src/machine/config.ts";

test("every option of a run", () => {
  const { machine, serial, stats, help } = parseOptions("run", [
    ..."--kernel k --initrd=i --memory 1G --cpus 4,sockets=2 --cpu x86-64-v2,+movbe,-sse4_2 --engine interpret --stats".split(
      " ",
    ),
    ..."--disk a.img --disk b,c.img,readonly --serial file:/tmp/x --debug-exit --trace exits,ports --trace msr".split(
      " ",
    ),
    ..."--on-halt wait --clock catch-up --without owed-ticks,halt-polling".split(" "),
    "--append",
    "console=ttyS0 -x",
    "--module",
    "m.elf first second",
    "--module=n.elf",
  ]);
  assert.deepEqual(machine, {
    kernel: "k",
    initrd: "i",
    commandLine: "console=ttyS0 -x",
    memory: "1G",
    cpus: "4,sockets=2",
    cpu: "x86-64-v2,+movbe,-sse4_2",
    engine: "interpret",
    disks: [
      { file: "a.img", readOnly: false },
      { file: "b,c.img", readOnly: true },
    ],
    modules: [
      { file: "m.elf", arguments: "first second" },
      { file: "n.elf", arguments: "" },
    ],
    debugExit: true,
    trace: ["exits", "ports", "msr"],
    onHalt: "wait",
    clock: "catch-up",
    without: ["owed-ticks", "halt-polling"],
  });
  assert.deepEqual(serial, { kind: "file", path: "/tmp/x" });
  assert.ok(stats && !help);
});

test("values that begin with a dash, and a debug exit port", () => {
  const { machine } = parseOptions("run", ["--append", "--help", "--debug-exit=0x501", "--kernel", "-"]);
  assert.equal(machine.commandLine, "--help");
  assert.equal(machine.kernel, "-");
  assert.equal(machine.debugExit, 0x501);
});

test("mistakes are one line", () => {
  const mistakes: [string[], RegExp][] = [
    [["--kernle", "x"], /unknown option --kernle/],
    [["--kernel"], /option --kernel needs a value/],
    [["vmlinuz"], /"vmlinuz" is no option/],
    [["--serial", "tcp"], /it is stdio, null or file:PATH/],
    [["--serial", "file:"], /it is stdio, null or file:PATH/],
    [["--debug-exit=port"], /is no number/],
    [["--module", "  "], /needs a file/],
    [["--stats=yes"], /stats/],
    [["-k"], /unknown option -k/],
  ];
  for (const [args, message] of mistakes) {
    assert.throws(
      () => parseOptions("run", args),
      (error) => {
        assert.ok(error instanceof SkepError, String(error));
        assert.match(error.message, message);
        assert.doesNotMatch(error.message, /\n/);
        return true;
      },
    );
  }
  assert.throws(() => parseOptions("start", ["--kernel", "x"]), /unknown option --kernel/);
});

test("help names every option once, those of a run only for a run", () => {
  const run = optionsHelp("run");
  for (const name of [
    ...["kernel", "initrd", "append", "module", "memory", "cpus", "cpu", "disk"],
    ...["serial", "debug-exit", "engine", "threads", "stats", "trace", "help"],
  ])
    assert.equal(run.match(new RegExp(`^  --${name}(?![\\w-])`, "gm"))?.length, 1, name);
  assert.doesNotMatch(optionsHelp("start"), /--kernel/);
  for (const line of run.split("\n")) assert.ok(line.length <= 120, line);
});

test("sizes", () => {
  assert.equal(parseSize("512M", "memory"), 512 * 2 ** 20);
  assert.equal(parseSize("1.5g", "memory"), 1.5 * 2 ** 30);
  assert.equal(parseSize("64KiB", "memory"), 65536);
  assert.equal(parseSize("4096", "memory"), 4096);
  for (const text of ["", "M", "1T", "-1M", "1e9", "0x10"]) assert.throws(() => parseSize(text, "memory"), SkepError);
});
