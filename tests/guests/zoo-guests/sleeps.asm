; Sleeps (S3) as soon as it is up (T5.6). Woken, it powers off on a press.
%include "zoo.inc"
%include "waking.inc"

  begin
  blank
  acpi_on
  button_on
  call set_vector
  say "up"
  say "asleep"
  sleep S3

; Where SeaBIOS goes after waking. The machine was reset, its memory was not.
woken:
  wake_up
  say "woken"
  wait_press
  power_off

  finish_waking
  finish
