"""Diffusion processes: schedules, closed forms, samplers; they know no network."""
