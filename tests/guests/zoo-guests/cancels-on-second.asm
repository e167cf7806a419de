; Takes its time to power off, and a second press within that time cancels it for good.
%include "zoo.inc"

  begin
  blank
  acpi_on
  button_on
  say "up"
  wait_press
  count
more:
  call idle
  jnz cancelled
  write_disk
  until DELAY, more
  power_off
cancelled:
  say "cancelled"
  ignore_all

  finish
