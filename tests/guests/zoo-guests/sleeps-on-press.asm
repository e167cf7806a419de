; Its button is set to sleep: every press puts it to sleep (S3) (T5.6).
%include "zoo.inc"
%include "waking.inc"

  begin
  blank
  acpi_on
  button_on
  call set_vector
  say "up"
awake:
  wait_press
  say "asleep"
  sleep S3

; Where SeaBIOS goes after waking. The machine was reset, its memory was not.
woken:
  wake_up
  say "woken"
  jmp awake

  finish_waking
  finish
