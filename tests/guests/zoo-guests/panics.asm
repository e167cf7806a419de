; Its kernel panics on the press, and tells the machine so.
; Source: QEMU 7.2 docs/specs/pvpanic.txt.
%include "zoo.inc"

  begin
  blank
  acpi_on
  button_on
  say "up"
  wait_press
  say "panic"
  mov dx, 0x505
  mov al, 1
  out dx, al
dead:
  cli
  hlt
  jmp dead

  finish
