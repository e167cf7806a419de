; The press restarts it.
%include "zoo.inc"

  begin
  blank
  acpi_on
  button_on
  say "up"
  wait_press
  say "reset"
  mov dx, 0xcf9
  mov al, 2
  out dx, al
  mov al, 6
  out dx, al                    ; a full reset, on both chipsets
dead:
  cli
  hlt
  jmp dead

  finish
